"""From raw files to histories with their split; importing a file here registers its sources."""
