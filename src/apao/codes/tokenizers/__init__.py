"""Ways to give items codes, one to a file; importing a file here registers its tokenizer."""
