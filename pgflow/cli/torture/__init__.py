"""`pgflow torture`: all the faults that this machine can produce, and a checker for what is lost or done twice."""
