-- Returns to the role that the worker connected with, for the settle. => nothing to read
reset role
