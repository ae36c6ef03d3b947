"""Group C: versions of a workflow, alone and side by side in a versioned workflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import new_class
from typing import Any

import pytest

from pgflow import Done, Unique, WaitForEvent, Workflow
from pgflow.core.definition.unique import Scope
from pgflow.errors import AlreadyRunning, DefinitionError, InvalidValue
from tests.conformance.conftest import Stack
from tests.conformance.definitions import Flow, Input, chain, make

A, B = make("a"), make("b")
confirm = WaitForEvent("confirmed").named("confirm")
Chooser = Callable[[Mapping[int, Flow], Mapping[str, Any]], int | None]


def versioned(current: int = 2, *, scope: Scope = "workflow", version_for: Chooser | None = None) -> Any:
    """Return a versioned workflow as one deployment defines it: version 1 waits, version 2 does not."""

    class CreateUser(Workflow[Input], unique=Unique("userid", scope), current=current):
        class V1(Workflow[Input], version=1):
            initial = confirm
            transitions = {confirm: {"received": A}, A: {"done": Done}}

        class V2(Workflow[Input], version=2):
            initial = B
            transitions = {B: {"done": Done}}

        versions = {1: V1, 2: V2}

        @classmethod
        def version_for(cls, versions: Mapping[int, Flow], options: Mapping[str, Any]) -> int | None:
            return version_for(versions, options) if version_for else None

    return CreateUser


def nested(number: int = 1, qualname: str = "U.V1", **options: Any) -> Any:
    """Return a version class as it would be in the body of a class U."""
    body = {"initial": A, "transitions": {A: {"done": Done}}, "__qualname__": qualname, "__module__": __name__}
    return new_class("V", (Workflow,), {"version": number, **options}, lambda space: space.update(body))


def refused(expected: str, versions: Any, body: Mapping[str, Any] | None = None, **options: Any) -> None:
    """Assert that a workflow U with these versions is refused with a message that starts with its name."""
    space = {"versions": versions, "__qualname__": "U", "__module__": __name__, **(body or {})}
    given = {"unique": Unique("k"), "current": 1, **options}
    with pytest.raises(DefinitionError, match=rf"^U\b.*{expected}"):
        new_class("U", (Workflow,), given, lambda names: names.update(space))


# -- a workflow of one version


def test_c1_a_workflow_has_one_version(stack: Stack) -> None:
    """C1: the version is 1 unless declared otherwise; only it can be resolved and started."""
    flow, third = chain(A), chain(A, name="Third", version=3)
    assert flow.resolve_version() == flow.resolve_version(None) == flow.resolve_version(1) == (1, flow)
    assert third.resolve_version() == third.resolve_version(3) == (3, third)
    with pytest.raises(ValueError, match=r"^Flow is not a versioned workflow; it only supports version 1, not 2"):
        flow.resolve_version(2)
    stack.run(flow, third)
    with pytest.raises(InvalidValue, match="not a versioned workflow"):
        flow.start("v", version=2)
    flow.start("v", version=1)
    third.start("w")
    assert (stack.until(flow, "v").version, stack.until(third, "w").version) == (1, 3)


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, None, True, 2**31])
def test_c2_a_version_is_a_positive_whole_number(version: Any) -> None:
    """C2: a version must be a whole number from 1."""
    with pytest.raises(DefinitionError, match=r"^Flow: version must be a whole number from 1, got "):
        chain(A, version=version)


# -- several versions side by side


def test_c3_a_versioned_workflow_exposes_its_versions() -> None:
    """C3: a versioned workflow has versions and a current one, but no version of its own."""
    flow = versioned()
    assert flow.versions == {1: flow.V1, 2: flow.V2}
    assert (flow.current_version, flow.version, flow.is_versioned) == (2, None, True)
    assert (flow.V1.version, flow.V2.version, flow.V1.is_versioned) == (1, 2, False)
    with pytest.raises(TypeError):
        flow.versions[3] = flow.V1


def test_c4_a_versioned_workflow_resolves_a_version_to_its_class() -> None:
    """C4: None resolves to the current version, a number to that version; an unknown one is refused with a list."""
    flow = versioned()
    assert (flow.resolve_version(), flow.resolve_version(1)) == ((2, flow.V2), (1, flow.V1))
    for unknown in (99, 0, "1", True):
        with pytest.raises(ValueError, match=rf"^version {unknown!r} not found in CreateUser\. Available: \[1, 2\]"):
            flow.resolve_version(unknown)


def test_c5_version_and_versions_exclude_each_other() -> None:
    """C5: a class has a version or versions; both are refused, also an explicit `version=1`."""
    for version in (1, 2):
        refused("cannot use both version and versions", {1: nested()}, version=version)


def test_c6_the_keys_of_versions_are_positive_whole_numbers() -> None:
    """C6: the keys of `versions` must be whole numbers from 1, and it must be a mapping that is not empty."""
    for key in (0, -1, "2", 1.5, True, None):
        refused(f"keys of versions must be whole numbers from 1, these are not: {key!r}", {2: nested(2), key: nested()})
    others: list[Any] = [{}, [nested()], 3]
    for versions in others:
        refused("versions is .*: write versions = {1: V1, 2: V2}", versions)


def test_c7_the_current_version_is_one_of_them() -> None:
    """C7: `current` must be given and be one of the versions; without versions it is refused."""
    refused(
        r"current=9 is not a key of versions \(available: 1\): use one of these, or add it", {1: nested()}, current=9
    )
    refused("has no current version: choose the one that starts use, as in current=1", {1: nested()}, current=None)
    with pytest.raises(DefinitionError, match="Flow: current=1 needs versions to choose from"):
        chain(A, current=1)


def test_c8_a_version_has_the_number_of_its_key() -> None:
    """C8: the version that a class declares equals its key in `versions`."""
    refused("version 1 is U.V1, which has version=2: make the two equal", {1: nested(2)})


def test_c9_a_version_is_nested_in_its_workflow() -> None:
    """C9: a version's class is nested in that of its workflow, by name or by module."""
    refused("version 1 is Other.V1, which must be nested under U: put its class", {1: nested(qualname="Other.V1")})
    beside = nested(qualname="UserV1", unique=Unique("k"))
    flow: Any = new_class("User", (Workflow,), {"unique": Unique("k"), "current": 1, "versions": {1: beside}}, _as_user)
    assert flow.versions == {1: beside}
    refused("version 1 has a business key of its own", {1: nested(unique=Unique("other"))})
    refused("version 1 is U.V1, which is already a version of U", {1: _taken()})


def _as_user(space: dict[str, Any]) -> None:
    space.update(__qualname__="User", __module__=__name__)


def _taken() -> Any:
    space: dict[str, Any] = {"versions": {1: nested()}, "__qualname__": "U", "__module__": __name__}
    new_class("U", (Workflow,), {"unique": Unique("k"), "current": 1}, lambda names: names.update(space))
    return space["versions"][1]


def test_c10_a_version_is_a_workflow() -> None:
    """C10: a version must be a workflow, and not a versioned one."""
    for wrong in ("V1", int, A, None):
        refused(r"version 1 is .*, which is not a workflow: write class V1\(Workflow\[…\], …\)", {1: wrong})
    refused("version 1 is CreateUser, which has versions itself", {1: versioned()})


def test_c11_a_versioned_workflow_has_no_graph() -> None:
    """C11: a versioned workflow has no graph, edges, predecessors or steps of its own; its versions have."""
    flow = versioned()
    for name in ("graph", "initial", "transitions"):
        assert not hasattr(flow, name)
    assert [edge.source for edge in flow.V1.graph.edges()] == ["confirm", "a"]
    refused("has versions, so it cannot have initial of its own", {1: nested()}, {"initial": A})
    refused(
        "has versions, so it cannot have transitions of its own", {1: nested()}, {"transitions": {A: {"done": Done}}}
    )
    refused(
        "has versions and no steps of its own: give retry, queue, priority, deadline and hooks to the versions",
        {1: nested()},
        queue="x",
    )


# -- which version a start takes


def test_c12_an_explicit_version_overrides_version_for_and_that_the_current_one(stack: Stack) -> None:
    """C12: a start uses the version it names, else that of `version_for`, else the current one, and stores it."""
    flow = versioned(version_for=lambda versions, options: options.get("wanted"))
    stack.run(flow)
    flow.start("named", version=1, options={"wanted": 2})
    flow.start("chosen", options={"wanted": 1})
    flow.start("plain")
    assert [flow.get(value).version for value in ("named", "chosen", "plain")] == [1, 1, 2]
    with pytest.raises(InvalidValue, match=r"version 3 not found in CreateUser\. Available: \[1, 2\]"):
        flow.start("other", options={"wanted": 3})
    assert stack.until(flow, "plain").steps == {"b": {}}
    assert stack.until(flow, "chosen", "waiting").waiting_for[0].step == "confirm"


def test_c13_version_for_gets_the_versions_and_all_arguments_of_the_start(stack: Stack) -> None:
    """C13: `version_for` gets the versions and all arguments of the start; None means the current version."""
    asked = []

    def version_for(versions: Mapping[int, Flow], options: Mapping[str, Any]) -> int | None:
        asked.append((dict(versions), dict(options)))
        return None

    flow = versioned(version_for=version_for)
    stack.run(flow)
    flow.start("v", {"n": 1}, tags=["t"], metadata={"m": 1}, priority=3, options={"tenant": "acme"})
    assert stack.until(flow, "v").version == 2
    ((versions, options),) = asked
    assert versions == {1: flow.V1, 2: flow.V2}
    given = {"value": "v", "input": {"n": 1}, "tags": ["t"], "metadata": {"m": 1}, "priority": 3, "tenant": "acme"}
    assert given.items() <= options.items()


def test_c14_an_instance_keeps_the_version_that_it_started_with(stack: Stack) -> None:
    """C14: a new current version does not change running instances, nor does a new deployment."""
    old = versioned(current=1)
    stack.run(old)
    old.start("v")
    assert stack.until(old, "v", "waiting").version == 1
    new = versioned(current=2)
    stack.restart(new)
    new.start("w")
    assert (stack.until(new, "w").version, new.get("v").version, new.get("v").status) == (2, 1, "waiting")
    new.resume("v", "confirmed")
    done = stack.until(new, "v")
    assert (done.version, [entry.step for entry in done.history]) == (1, ["confirm", "a"])


def test_c15_a_start_takes_a_version_and_options(stack: Stack) -> None:
    """C15: `start` takes `version=` and `options=`; the options are passed to `version_for` and not stored."""
    flow = versioned(version_for=lambda versions, options: 1 if options.get("tenant") == "acme" else None)
    stack.run(flow)
    flow.start("v", {"n": 1}, options={"tenant": "acme"})
    flow.start("w", {"n": 1}, version=1)
    for value in ("v", "w"):
        stored = stack.until(flow, value, "waiting")
        assert (stored.version, stored.input, stored.metadata, stored.tags) == (1, {"n": 1}, {}, ())


def test_c16_a_key_is_unique_in_the_version_that_was_chosen(stack: Stack) -> None:
    """C16: with the scope "version", only an active instance of the chosen version refuses a start."""
    flow = versioned(scope="version", version_for=lambda versions, options: options.get("wanted"))
    stack.run(flow)
    first = flow.start("v", options={"wanted": 1})
    stack.until(flow, "v", "waiting")
    for options in ({"version": 1}, {"options": {"wanted": 1}}):
        with pytest.raises(AlreadyRunning):
            flow.start("v", **options)
    second = flow.start("v")  # the current version, without an active instance
    assert (first.id, second.id) == ("userid::v", "userid::v")
    assert stack.until(flow, "v").version == 2
    assert (flow.V1.get("v").run, flow.V1.get("v").status) == (first.run, "waiting")


def test_c16_a_key_is_unique_over_all_versions_by_default(stack: Stack) -> None:
    """C16: with the scope "workflow", an active instance of any version refuses a start."""
    flow = versioned()
    stack.run(flow)
    flow.start("v", version=1)
    with pytest.raises(AlreadyRunning):
        flow.start("v", version=2)
