"""How Snakemake and DVC see a study."""
