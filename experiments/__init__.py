"""Experiments: one figure or table a file, each a command: `python -m experiments.<name>`."""
