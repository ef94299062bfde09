"""Where the numbers of a training go while it runs, besides history.csv: one module per tracker."""
