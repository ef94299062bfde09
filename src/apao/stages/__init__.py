"""One module per subcommand: read files, call the science, write files."""
