-- Returns to the settings that the worker connected with, for the settle: also the name by which worker/evict.sql finds the session. => nothing to read
reset all
