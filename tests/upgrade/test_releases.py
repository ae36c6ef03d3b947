"""Two releases on one database, with work under way: nothing is lost, no step runs twice, no SQL error is seen."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from pgflow.database.connect import Connection
from pgflow.database.migration_files import migrations
from tests.upgrade.conftest import Hire
from tests.upgrade.releases import Release, Site, earlier, previous_commit
from tests.worker.db_helpers import leftovers, one, rows, until_all_ended, until_recorded
from tests.worker.processes import Process
from tests.worker.waiting import until

pytestmark = pytest.mark.slow

STEPS = ("begin", "left", "right", "join", "book")
OUTDATED = "schema-outdated: "
TOO_NEW = "schema-too-new: migration "
DEPLOY = "Deploy the pgflow that ships "
TROUBLE = ("trying again", "ERROR", "Traceback", "cannot")
PREVIOUS = previous_commit()
SHALLOW = "no git history (a shallow clone?): the simulated releases cover the same"


def check_outcome(site: Site, conn: Connection, started: int, *workers: Process) -> None:
    """Check that every instance has completed, each step ran once, in its first attempt, and nothing went wrong."""
    assert until_all_ended(conn, patience=60) == {"completed": started}
    assert leftovers(conn) == {}
    assert one(conn, "select count(*) from pgflow.step_results") == 7 * started
    assert rows(conn, "select distinct attempt, errors from pgflow.step_results") == [(1, None)]
    ran = [(value, step) for value, step, _, _ in site.runs()]
    assert len(ran) == len(set(ran)) == len(STEPS) * started
    assert rows(conn, "select count(*), count(distinct value) from public.bookings") == [(started, started)]
    for each in workers:
        assert not [word for word in TROUBLE if word in each.log], each.log


def ran_by(site: Site) -> set[str]:
    """Return the releases whose workers have run steps."""
    return {release for _, _, _, release in site.runs()}


def refused(process: Process, *words: str) -> None:
    """Check that a worker has ended by itself, with one line about the schema and what to do."""
    assert process.wait() == 4, process.log
    line = process.log.splitlines()[-1]
    assert [word for word in ("pgflow: ", *words) if word not in line] == [], line


def roll(site: Site, conn: Connection, hire: Hire, old: Release, new: Release) -> None:
    """Roll a compatible release out under load, and back."""
    assert site.pgflow(old, "migrate").returncode == 0
    staff = [hire(old), hire(old)]
    callers = [site.caller(old)]
    until_recorded(conn, 50)

    refused(hire(new, ready=False), "needs 00", "Run: pgflow migrate")
    migrated = site.pgflow(new, "migrate")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert migrated.stdout.splitlines()[-1] in (
        "applied functions",
        f"applied {new.migrations[-1].replace('_', ' ', 1)}",
    )

    for leaving in (0, 1):  # one by one: old and new side by side
        staff.append(hire(new))
        callers.append(site.caller(new))
        until(lambda: new.name in ran_by(site), "work for the new ones")
        assert staff[leaving].terminate() == 0, staff[leaving].log
    started = callers[0].stop()
    seen = len(site.runs())

    staff.append(hire(old))  # roll back
    callers.append(site.caller(old))
    until(lambda: old.name in {release for *_, release in site.runs()[seen:]}, "work for the old one")
    for leaving in (2, 3):
        assert staff[leaving].terminate() == 0, staff[leaving].log
    check_outcome(site, conn, started + sum(caller.stop() for caller in callers[1:]), *staff)
    assert ran_by(site) == {old.name, new.name}


def test_a_compatible_release_is_rolled_out_and_back_under_load(
    site: Site, conn: Connection, hire: Hire, releases: dict[str, Release]
) -> None:
    roll(site, conn, hire, releases["present"], releases["compatible"])


@pytest.mark.skipif(PREVIOUS is None, reason=SHALLOW)
def test_this_release_is_rolled_out_over_the_previous_one(
    site: Site, conn: Connection, hire: Hire, releases: dict[str, Release], tmp_path: Path
) -> None:
    assert PREVIOUS is not None
    old, new = earlier(tmp_path / "earlier", PREVIOUS), releases["present"]
    if any(each.breaking for each in migrations()[len(old.migrations) :]):
        replace(site, conn, hire, old, new)
    else:
        roll(site, conn, hire, old, new)


def test_a_breaking_release_is_rolled_out_under_load(
    site: Site, conn: Connection, hire: Hire, releases: dict[str, Release]
) -> None:
    replace(site, conn, hire, releases["present"], releases["breaking"])


def replace(site: Site, conn: Connection, hire: Hire, old: Release, new: Release) -> None:
    """Roll a release with a breaking migration out under load: the old workers end before the new ones start."""
    assert site.pgflow(old, "migrate").returncode == 0
    staff = [hire(old), hire(old, "--no-listen")]
    caller = site.caller(old)
    until_recorded(conn, 50)
    early = hire(new, ready=False)
    refused(early, "needs 00", "Run: pgflow migrate")

    migrated = site.pgflow(new, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    applied = [f"applied {each.replace('_', ' ', 1)}" for each in new.migrations[len(old.migrations) :]]
    assert migrated.stdout.splitlines() == [*applied, "applied functions"]
    for line in migrated.stderr.splitlines()[:1]:  # none, if they have all drained before it looks
        assert line.startswith("waiting for older workers to shut down: worker ")
        assert {int(pid) for pid in re.findall(r"pid (\d+)", line)} <= {each.pid for each in staff}
    for each in (*staff, hire(old, ready=False)):
        refused(each, f"migration {new.migrations[-1]} of schema", DEPLOY + new.migrations[-1])
    assert one(conn, "select count(*) from pgflow.jobs where state = 'running'") == 0

    staff.append(hire(new))
    newer = site.caller(new)
    until_recorded(conn, one(conn, "select count(*) from pgflow.step_results") + 50)
    # An old application can start and signal, through the new functions; it can no longer read tables itself.
    started = caller.stop(("get", TOO_NEW + new.migrations[-1])) + newer.stop()
    check_outcome(site, conn, started, *staff)
    assert ran_by(site) == {old.name, new.name}


def test_each_call_on_an_old_or_new_schema_reports_the_mismatch(
    site: Site, conn: Connection, releases: dict[str, Release]
) -> None:
    old, compatible, breaking = releases["present"], releases["compatible"], releases["breaking"]
    calls = ("start", "get", "list", "transaction", "cancel")
    fine = dict.fromkeys(calls, "ok")
    assert site.pgflow(old, "migrate").returncode == 0
    assert site.calls(old, "a", *calls) == fine

    def outdated(release: Release, *names: str) -> dict[str, str]:
        said = f'schema-outdated: schema "pgflow" is at {len(old.migrations):04}, this pgflow needs '
        return fine | dict.fromkeys(names, f"{said}{len(release.migrations):04} Run: pgflow migrate")

    assert site.calls(compatible, "b", *calls) == outdated(compatible, "get", "transaction")
    assert site.calls(breaking, "c", *calls) == outdated(breaking, "get", "list", "transaction")

    script = site.pgflow(compatible, "migrate")
    assert script.returncode == 0, script.stderr
    assert site.calls(compatible, "d", *calls) == site.calls(old, "e", *calls) == fine


def test_an_old_application_reports_what_to_deploy_after_a_breaking_migration(
    site: Site, conn: Connection, releases: dict[str, Release]
) -> None:
    old, new = releases["present"], releases["breaking"]
    assert site.pgflow(new, "migrate").returncode == 0
    names = ("start", "get", "list", "transaction", "cancel")
    assert site.calls(new, "a", *names) == dict.fromkeys(names, "ok")
    latest, last = len(old.migrations), new.migrations[-1]
    knows = f"which knows the schema up to {latest:04} {DEPLOY}{last}."
    said = f'{TOO_NEW}{last} of schema "pgflow" is too new for this pgflow, {knows}'
    assert site.calls(old, "b", *names) == {"start": "ok", **dict.fromkeys(names[1:], said)}
    listed = site.pgflow(old, "list", "Load")
    assert (listed.returncode, listed.stdout) == (4, "")
    assert listed.stderr.startswith(f"pgflow: migration {last} of schema")
    assert listed.stderr.count("\n") == 1


def test_a_worker_that_does_not_end_is_named_and_the_others_can_restart(
    site: Site, conn: Connection, hire: Hire, releases: dict[str, Release]
) -> None:
    old, new = releases["present"], releases["breaking"]
    assert site.pgflow(old, "migrate").returncode == 0
    frozen, lively = hire(old, "--lease", "120"), hire(old)
    caller = site.caller(old)
    until_recorded(conn, 50)
    frozen.send(signal.SIGSTOP)
    migrated = site.pgflow(new, "migrate", "--wait", "3")
    assert migrated.returncode == 4
    assert f"pid {frozen.pid}" in migrated.stderr.splitlines()[-1]
    assert f"pid {lively.pid}" not in migrated.stderr.splitlines()[-1]
    refused(lively, DEPLOY)
    staff = [frozen, hire(old)]
    frozen.send(signal.SIGCONT)
    check_outcome(site, conn, caller.stop(), *staff)
    assert [each.code for each in staff] == [None, None]


def test_a_worker_frozen_during_the_migration_writes_nothing_and_ends(
    site: Site, conn: Connection, hire: Hire, releases: dict[str, Release]
) -> None:
    old, new = releases["present"], releases["breaking"]
    assert site.pgflow(old, "migrate").returncode == 0
    frozen = hire(old, "--lease", "4")
    caller = site.caller(old)
    until_recorded(conn, 20)
    frozen.send(signal.SIGSTOP)
    migrated = site.pgflow(new, "migrate")
    assert (migrated.returncode, f"pid {frozen.pid}" in migrated.stderr) == (0, True), migrated.stderr
    started = caller.stop(("get", TOO_NEW))
    frozen.send(signal.SIGCONT)
    refused(frozen, f"migration {new.migrations[-1]} of schema", DEPLOY)
    lately = one(conn, "select count(*) from pgflow.step_results")
    hire(new)
    assert until_all_ended(conn) == {"completed": started}
    assert leftovers(conn) == {}
    assert 0 < lately < one(conn, "select count(*) from pgflow.step_results") == 7 * started
    assert one(conn, "select max(attempt) from pgflow.step_results") == 1  # the lost worker cost no attempt
    assert rows(conn, "select count(*), count(distinct value) from public.bookings") == [(started, started)]


def test_a_migrate_resumes_after_one_that_was_killed_while_waiting(
    site: Site, conn: Connection, hire: Hire, releases: dict[str, Release]
) -> None:
    old, new = releases["present"], releases["breaking"]
    assert site.pgflow(old, "migrate").returncode == 0
    frozen = hire(old, "--lease", "3")
    frozen.send(signal.SIGSTOP)
    killed = site.begin(new, "migrate")
    assert killed.stderr is not None
    assert "waiting for older workers" in killed.stderr.readline()
    killed.kill()
    killed.communicate()
    refused(hire(old, ready=False), f"migration {new.migrations[-1]} of schema", "is announced", DEPLOY)
    status = site.pgflow(new, "migrate", "--status")
    assert (status.returncode, status.stdout.count(" announced")) == (4, 1), status.stdout
    assert site.pgflow(new, "migrate").returncode == 0
    assert site.pgflow(new, "migrate", "--status").returncode == 0
