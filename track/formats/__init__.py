"""File formats: the only place that knows the columns of files."""
