"""Other frameworks' weights -> our parameter trees: one strict engine, a rename table per model."""
