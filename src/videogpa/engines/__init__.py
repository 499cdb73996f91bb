"""Where the rows of a stage are computed."""
