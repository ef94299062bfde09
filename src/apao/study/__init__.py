"""What is to be made: params.yaml, runs and their names, paths, studies."""
