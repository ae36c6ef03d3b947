"""The fault proxy: the effect of each rule on its sessions and in the database; everything else is forwarded."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from pgflow.database.connect import connect
from pgflow.database.transaction_status import is_idle
from pgflow.errors import InvalidValue
from tests.torture.wire.active_rules import WireEvent
from tests.torture.wire.proxy import Proxy, upstream_of
from tests.torture.wire.rule import Kind, Rule
from tests.worker.waiting import PATIENCE, until

Conn = psycopg.Connection[Any]
ENDINGS = ("autocommit", "pipeline", "block", "simple")


@pytest.fixture(scope="module")
def table(dsn: str) -> str:
    with connect(dsn, "test") as conn:
        conn.execute("create table marks (name text)")
    return dsn


@pytest.fixture
def events() -> list[WireEvent]:
    return []


@pytest.fixture
def proxy(table: str, events: list[WireEvent]) -> Iterator[Proxy]:
    with Proxy(upstream_of(table), notify=events.append) as proxy:
        yield proxy
    with connect(table, "test") as conn:
        conn.execute("delete from marks")


@pytest.fixture
def enter(proxy: Proxy, table: str) -> Iterator[Callable[..., Conn]]:
    """Give `enter(door, role)`: a connection through a door of that name."""
    doors = {name: proxy.door(name) for name in ("a", "b")}
    with ExitStack() as stack:

        def connection(door: str = "a", role: str = "pgflow:worker") -> Conn:
            dsn = doors[door].through(table)
            conn = psycopg.connect(dsn, application_name=role, autocommit=True, connect_timeout=10)
            stack.callback(conn.close)
            return conn

        yield connection


def marks(table: str) -> list[str]:
    with connect(table, "test") as conn:
        return sorted(row[0] for row in conn.execute("select name from marks").fetchall())


def mark(conn: Conn, ending: str, name: str) -> None:
    """Write a row, in a transaction that ends in one of the ways."""
    match ending:
        case "autocommit":
            conn.execute("insert into marks values (%s)", [name])
        case "pipeline":
            with conn.pipeline():
                conn.execute("insert into marks values (%s)", [name])
                conn.execute("select 1")
        case "block":
            with conn.transaction():
                conn.execute("insert into marks values (%s)", [name])
        case _:
            conn.execute(f"insert into marks values ('{name}')")  # noqa: S608 -- the tests' own names


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("kind", "is_there"),
    [("commit lost", False), ("reply lost", True), ("reply cut", True)],
    ids=lambda each: str(each),
)
def test_the_nth_commit_is_lost_or_its_answer_is(
    kind: Kind,
    is_there: bool,
    ending: str,
    proxy: Proxy,
    enter: Callable[..., Conn],
    table: str,
    events: list[WireEvent],
) -> None:
    conn, other = enter(), enter()
    fault = proxy.inject(Rule(kind, nth=2))
    mark(conn, ending, "first")
    with pytest.raises(psycopg.OperationalError) as lost:
        mark(conn, ending, "second")
    assert lost.value.sqlstate is None
    assert not is_idle(conn)  # `broken` only once libpq, too, has read the end of the stream
    mark(other, ending, "third")
    assert fault.wait(0)
    until(lambda: proxy.sessions() == 1, "the session's end")
    assert marks(table) == ["first", *(["second"] if is_there else []), "third"]
    assert (fault.seen, fault.hits) == (3, 1)
    assert proxy.applied == {(kind, "a", "pgflow:worker"): 1}
    assert proxy.points == {("a", "pgflow:worker"): 3}
    assert [each.is_committed for each in events if each.what == kind] == [is_there]


def test_half_an_answer_arrives_before_the_end(proxy: Proxy, enter: Callable[..., Conn]) -> None:
    proxy.inject(Rule("reply cut", nth=1))
    seen: list[Any] = []
    with pytest.raises(psycopg.OperationalError):
        seen.extend(enter().cursor().stream("select generate_series(1, 1000)"))
    assert 0 < len(seen) < 1000


def test_the_answer_to_a_copy_is_lost_although_the_server_asks_for_the_data(
    proxy: Proxy, enter: Callable[..., Conn], table: str
) -> None:
    proxy.inject(Rule("reply lost", nth=1))
    with pytest.raises(psycopg.OperationalError), enter().cursor().copy("copy marks from stdin") as lines:
        lines.write_row(["copied"])
    assert marks(table) == ["copied"]


def test_a_rule_is_about_a_door_a_role_or_a_statement(proxy: Proxy, enter: Callable[..., Conn], table: str) -> None:
    rules = [
        Rule("commit lost", door="b", role="pgflow:worker"),
        Rule("commit lost", role="pgflow:heart"),
        Rule("commit lost", statement="Greets"),
    ]
    for rule in rules:
        proxy.inject(rule)
    others = [enter("a", "pgflow:worker"), enter("b", "pgflow:client"), enter("a", "pgflow:heartless")]
    for number, conn in enumerate(others):
        mark(conn, "pipeline", f"well {number}")
    for conn in (enter("b", "pgflow:worker"), enter("b", "pgflow:heart"), enter("a", "pgflow:heart")):
        with pytest.raises(psycopg.OperationalError):
            mark(conn, "pipeline", "lost")
    with pytest.raises(psycopg.OperationalError):
        others[0].execute("-- Greets.\nselect 'hello'")
    assert marks(table) == ["well 0", "well 1", "well 2"]


def test_the_same_seed_picks_the_same_occasions(proxy: Proxy, enter: Callable[..., Conn]) -> None:
    def lost_at(seed: int) -> list[int]:
        fault = proxy.inject(Rule("commit lost", chance=0.3, seed=seed))
        lost = []
        for number in range(20):
            conn = enter()
            try:
                mark(conn, "autocommit", "x")
            except psycopg.OperationalError:
                lost.append(number)
        proxy.heal(fault)
        assert fault.hits == len(lost)
        return lost

    first = lost_at(1)
    assert 0 < len(first) < 20
    assert lost_at(1) == first != lost_at(2)


@pytest.mark.parametrize("kind", ["stall", "stall up", "stall down"])
def test_what_is_stalled_comes_in_order_when_it_is_healed(
    kind: Kind, proxy: Proxy, enter: Callable[..., Conn], table: str
) -> None:
    conn, other = enter(), enter("b")
    fault = proxy.inject(Rule(kind, door="a"))
    done = threading.Event()

    def work() -> None:
        for number in range(3):
            mark(conn, "autocommit", f"{number}")
        with conn.cursor().copy("copy marks from stdin") as lines:
            for number in range(1000):
                lines.write_row([f"row {number:04}"])
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    assert fault.wait(PATIENCE)
    mark(other, "autocommit", "other")
    assert not done.is_set()
    assert ("0" in marks(table)) == (kind == "stall down")
    proxy.heal(fault)
    thread.join(PATIENCE)
    assert done.is_set()
    assert marks(table) == ["0", "1", "2", "other", *(f"row {number:04}" for number in range(1000))]


def test_a_stalled_session_does_not_learn_that_its_client_has_gone(
    proxy: Proxy, enter: Callable[..., Conn], table: str
) -> None:
    alive = "select count(*) from pg_stat_activity where application_name = 'pgflow:gone'"
    conn = enter("a", "pgflow:gone")
    fault = proxy.inject(Rule("stall up"))
    conn.close()
    with connect(table, "test") as watch:
        assert fault.wait(PATIENCE)
        assert watch.execute(alive).fetchone() == (1,)
        proxy.heal()
        until(lambda: watch.execute(alive).fetchone() == (0,), "its end")


def test_a_new_session_waits_while_everything_is_stalled(proxy: Proxy, enter: Callable[..., Conn]) -> None:
    fault = proxy.inject(Rule("stall"))
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(enter().info.backend_pid))
    thread.start()
    assert fault.wait(PATIENCE)
    assert not seen
    proxy.heal()
    thread.join(PATIENCE)
    assert seen


def test_a_delay_and_a_slow_line_cost_time_and_nothing_else(proxy: Proxy, enter: Callable[..., Conn]) -> None:
    conn = enter()
    for rule, seconds in ((Rule("delay", ms=60, jitter=10), 0.1), (Rule("slow", kbps=1000), 0.19)):
        fault = proxy.inject(rule)
        began = time.monotonic()
        row = conn.execute("select repeat('x', 200000)").fetchone()
        assert row == ("x" * 200_000,)
        assert time.monotonic() - began > seconds
        proxy.heal()
        assert fault.hits >= 2


def test_a_refused_session_gets_no_message_and_existing_sessions_continue(
    proxy: Proxy, enter: Callable[..., Conn], events: list[WireEvent]
) -> None:
    inside = enter("a", "pgflow:client")
    proxy.inject(Rule("refuse", role="pgflow:client"))
    with pytest.raises(psycopg.OperationalError):
        enter("b", "pgflow:client")
    enter("b", "pgflow:worker")
    inside.execute("select 1")
    assert [(each.door, each.role) for each in events if each.what == "refuse"] == [("b", "pgflow:client")]
    proxy.heal()
    enter("b", "pgflow:client")


def test_sessions_are_reset_by_door_and_role(proxy: Proxy, enter: Callable[..., Conn]) -> None:
    conns = {key: enter(*key) for key in (("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"))}
    assert proxy.reset("a", "x") == 1
    assert proxy.reset(role="y") == 2
    for key, conn in conns.items():
        if key == ("b", "x"):
            conn.execute("select 1")
        else:
            with pytest.raises(psycopg.OperationalError):
                conn.execute("select 1")
    assert proxy.reset() == 1
    assert proxy.applied == {("reset", *key): 1 for key in conns}


@pytest.mark.parametrize(
    ("kind", "heard"),
    [("drop notifications", ["last"]), ("double notifications", ["one", "one", "last"]), ("late notifications", None)],
)
def test_notifications_are_lost_doubled_or_late(
    kind: Kind, heard: list[str] | None, proxy: Proxy, enter: Callable[..., Conn]
) -> None:
    ear, mouth = enter("a", "pgflow:listen"), enter("b")
    ear.execute("listen ears")
    fault = proxy.inject(Rule(kind, role="pgflow:listen", ms=200, nth=1))
    for word in ("one", "last"):
        mouth.execute("select pg_notify('ears', %s)", [word])
    assert ear.execute("select 7").fetchone() == (7,)
    wanted = heard or ["last", "one"]
    notes = [note.payload for note in ear.notifies(timeout=PATIENCE, stop_after=len(wanted))]
    assert notes == wanted
    assert fault.hits == 1


def test_a_statement_can_be_cancelled_through_it(enter: Callable[..., Conn], table: str) -> None:
    conn = enter()
    sleeps = "select true from pg_stat_activity where pid = %s and wait_event = 'PgSleep'"

    def cancel() -> None:
        with connect(table, "test") as watch:
            until(lambda: watch.execute(sleeps, [conn.info.backend_pid]).fetchone(), "its sleep")
        conn.cancel_safe(timeout=PATIENCE)

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        conn.execute("select pg_sleep(30)")
    thread.join(PATIENCE)
    conn.execute("select 1")


@pytest.mark.parametrize("mode", ["sslmode", "gssencmode"])
def test_a_request_for_encryption_is_declined(mode: str, proxy: Proxy, table: str) -> None:
    door = proxy.door("c")
    with socket.create_connection(("127.0.0.1", door.port)) as line:
        code = 80877103 if mode == "sslmode" else 80877104
        line.sendall((8).to_bytes(4) + code.to_bytes(4))
        assert line.recv(10) == b"N"
    with psycopg.connect(psycopg.conninfo.make_conninfo(door.through(table), **{mode: "prefer"})) as conn:
        conn.execute("select 1")


def test_the_servers_refusal_reaches_the_client(proxy: Proxy, table: str) -> None:
    door = proxy.door("c")
    with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
        psycopg.connect(door.through(psycopg.conninfo.make_conninfo(table, dbname="nowhere")))


def test_new_sessions_use_the_current_upstream(proxy: Proxy, enter: Callable[..., Conn], table: str) -> None:
    inside = enter()
    there = proxy.upstream
    proxy.upstream = ("127.0.0.1", 1)
    with pytest.raises(psycopg.OperationalError):
        enter()
    inside.execute("select 1")
    proxy.upstream = there
    enter().execute("select 1")


def test_it_ends_with_all_its_sessions_also_those_that_are_stalled(table: str) -> None:
    with Proxy(upstream_of(table)) as proxy:
        door = proxy.door("a")
        conns = [psycopg.connect(door.through(table), autocommit=True) for _ in range(3)]
        silent = socket.create_connection(("127.0.0.1", door.port))
        fault = proxy.inject(Rule("stall"))
        conns[0].pgconn.send_query(b"select 1")
        conns[0].pgconn.flush()
        assert fault.wait(PATIENCE)
    for conn in conns:
        with pytest.raises(psycopg.OperationalError):
            conn.execute("select 1")
        conn.close()
    silent.close()
    assert proxy.applied["stall", "a", ""] == 1
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(door.through(table))


def test_an_unknown_kind_of_rule_is_refused() -> None:
    with pytest.raises(InvalidValue, match="unknown kind of rule 'comit lost'") as refused:
        Rule("comit lost")  # type: ignore[arg-type]
    assert "commit lost, reply lost" in (refused.value.hint or "")
