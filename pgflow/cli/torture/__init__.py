"""`pgflow torture`: prove on a real server what pgflow promises, while everything goes wrong that can."""
