-- Returns to the user that the worker connected as, for the settle; a role that is set goes with it. => nothing to read
reset session authorization
