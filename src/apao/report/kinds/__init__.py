"""The kinds of tables and figures, one module each: what params.yaml says of such a study, and how it is drawn."""
