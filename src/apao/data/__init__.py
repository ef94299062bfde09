"""From raw files to leave-one-out histories; importing a file here registers its sources."""
