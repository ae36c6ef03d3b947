"""A proxy that understands what clients and PostgreSQL say to each other, and lets it go wrong commit by commit."""
