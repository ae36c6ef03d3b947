"""The workload: `steps` and `flows` that record their executions, and `callers` that start and signal instances."""
