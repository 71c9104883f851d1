"""What coordinator, workers and command line say to each other, and how it travels."""
