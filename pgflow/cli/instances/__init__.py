"""Commands that start, change and show instances and their jobs, one module per command."""
