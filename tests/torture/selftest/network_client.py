"""A client at the other end of a network: runs the commands of its standard input and prints their results.

python -m tests.torture.selftest.network_client DSN
connect             open the connection, as a worker does
run SELECT …        run a statement
listen              wait for a notification
"""

from __future__ import annotations

import sys

import psycopg

from pgflow.database.connect import Connection, connect


def execute(conn: Connection, line: str) -> str:
    """Run a command and return its result in one line."""
    try:
        if line.startswith("run "):
            return f"done {conn.execute(line[4:].encode()).statusmessage}"
        conn.execute("listen torture")
        return f"done {list(conn.notifies(stop_after=1))}"
    except psycopg.Error as error:
        return f"failed {type(error).__name__} {str(error).splitlines()[0]}"


def main() -> None:
    """Run the lines of the standard input until it ends."""
    conn = None
    for line in sys.stdin:
        if conn is None:
            conn = connect(sys.argv[1], "worker")
            print("connected", flush=True)
        else:
            print("started", flush=True)
            print(execute(conn, line.strip()), flush=True)


if __name__ == "__main__":
    main()
