"""Speed, measured. Never asserted in a test: machines differ."""
