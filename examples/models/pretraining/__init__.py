"""What the tiny example model was pretrained on, and its tokenizer."""
