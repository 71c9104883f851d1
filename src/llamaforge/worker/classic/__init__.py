"""The classic way on a worker: a torchrun that waits is found, joined once, and left together."""
