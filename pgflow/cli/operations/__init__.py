"""Commands that install, run and check a deployment: migrate, roles, worker, doctor, one module per command.

`health` serves the worker's HTTP probes; `init_process` reaps orphans when the worker would be PID 1.
"""
