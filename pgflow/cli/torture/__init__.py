"""`pgflow torture`: hurt a PostgreSQL and its workers in every way that one machine can, and prove what is promised."""
