"""A throwaway PostgreSQL server for demos and tests: `with EmbeddedPostgres() as postgres: postgres.dsn`.

server          start and stop the server on a private socket; it never outlives its process
installation    find PostgreSQL's programs, from the `embedded` extra or the system
process_tree    terminate a program and every process that it started
tempdir         private temporary directories, and removal of those that killed processes left
"""

from pgflow.embedded.installation import find_installations
from pgflow.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "find_installations"]
