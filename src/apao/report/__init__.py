"""Tables, figures and their comparison with the paper's numbers, from the files that runs leave."""
