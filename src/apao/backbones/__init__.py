"""Sequence models over item codes. Importing a module of this package registers its backbone."""
