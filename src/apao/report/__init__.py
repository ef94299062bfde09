"""Tables and figures, with the paper's numbers beside ours, from the result files of runs."""
