"""Commands that install, run and check a system: migrate, roles, worker, doctor, one module per command."""
