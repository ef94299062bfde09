"""Helpers of all test suites: small models and projects, processes, disks, and comparison of files."""
