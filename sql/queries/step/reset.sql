-- Restores the settings that the worker connected with, for the settle, including the application_name by which worker/terminate_expired_backends.sql finds the session. => no result
reset all
