"""Sequence models over item codes; importing a file here registers its backbone."""
