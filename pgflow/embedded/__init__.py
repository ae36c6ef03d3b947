"""A throwaway PostgreSQL for demos, tests and development: private socket, no TCP port, ends with its process.

server          EmbeddedPostgres: start, stop, crash and restart the server
postmaster      run the server as a child process that ends with this one
installation    find PostgreSQL's programs, from the `embedded` extra or the system
process_tree    kill a program together with its child processes
tempdir         private temporary directories, and removal of those that killed processes left behind
"""

from pgflow.embedded.installation import find_installations
from pgflow.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "find_installations"]
