-- Restores the user that the worker connected as, for the settle; this also resets the role. => no result
reset session authorization
