"""Who sends a request, what they may do, and what browsers may do with the answer."""
