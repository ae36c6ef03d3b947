-- Restores the role that the worker connected with, for the settle. => no result
reset role
