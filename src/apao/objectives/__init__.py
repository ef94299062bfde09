"""Training losses, one family to a file; importing a file here registers its objectives."""
