"""What the test suites share: small models, small projects, processes, disks, and what is in files."""
