"""How Snakemake and DVC see params.yaml."""
