"""People's data files made into canonical rows. No tokenizer and no torch: the CLI reads it."""
