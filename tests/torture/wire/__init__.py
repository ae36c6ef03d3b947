"""A proxy that parses the PostgreSQL protocol and applies faults commit by commit."""
