"""Kinds of tables and figures, one per module: the model of its entries in params.yaml, and how it is drawn."""
