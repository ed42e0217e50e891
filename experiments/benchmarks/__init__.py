"""One claim about speed a file; each prints one table."""
