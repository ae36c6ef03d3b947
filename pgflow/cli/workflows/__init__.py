"""Commands for workflow definitions: graph, docs, validate, one module per command."""
