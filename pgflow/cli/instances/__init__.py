"""Commands that start, change and show instances and their jobs, one module per command.

`rendering` formats instances for list and show; `json_lines` reads the file of `start --from`.
"""
