"""A versioned workflow: what it declares, which version a start uses, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import new_class
from typing import Any
from weakref import WeakSet

import pytest

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step
from pgflow.client import apps
from pgflow.core.definition.registry import Registry
from pgflow.errors import DefinitionError, InvalidValue, NotBound


@step
def store(ctx: Context[Any]) -> Ok:
    return Ok("done")


@step(events=("good", "bad"))
def check(ctx: Context[Any]) -> Ok:
    return Ok("good")


STORING: Any = {store: {"done": Done}}


class CreateUser(Workflow[dict[str, Any]], unique=Unique("userid"), current=2, tags=["users"], metadata={"team": "x"}):
    class V1(Workflow[dict[str, Any]], version=1):
        initial = store
        transitions = STORING

    class V2(Workflow[dict[str, Any]], version=2, tags=["new", "users"], metadata={"team": "y"}, queue="slow"):
        initial = check
        transitions = {check: {"good": store, "bad": Done}, store: {"done": Done}}

    versions = {1: V1, 2: V2}

    @classmethod
    def version_for(cls, versions: Mapping[int, type[Workflow[Any]]], options: Mapping[str, Any]) -> int | None:
        asked.append((versions, options))
        wanted: int | None = options.get("wanted")
        return wanted


class OldUser(Workflow[Any], unique=Unique("userid"), version=1):
    initial = store
    transitions = STORING


asked: list[tuple[Mapping[int, type[Workflow[Any]]], Mapping[str, Any]]] = []


def test_a_versioned_workflow_exposes_its_versions() -> None:
    assert CreateUser.is_versioned
    assert (CreateUser.version, CreateUser.current_version) == (None, 2)
    assert CreateUser.versions == {1: CreateUser.V1, 2: CreateUser.V2}


def test_a_versioned_workflow_has_no_graph() -> None:
    for name in ("graph", "initial", "transitions", "queue"):
        assert not hasattr(CreateUser, name)


def test_versions_share_the_name_and_the_key_and_add_to_tags_and_metadata() -> None:
    first, second = CreateUser.V1.graph, CreateUser.V2.graph
    assert [(graph.name, graph.version, graph.unique) for graph in (first, second)] == [
        ("CreateUser", 1, Unique("userid")),
        ("CreateUser", 2, Unique("userid")),
    ]
    assert (first.tags, second.tags) == (("users",), ("users", "new"))
    assert (first.metadata, second.metadata) == ({"team": "x"}, {"team": "y"})
    assert second.nodes["check"].queue == "slow"


def test_a_version_is_pinned_to_its_number() -> None:
    assert (CreateUser.V2.version, CreateUser.V2.pinned, CreateUser.V2.is_versioned) == (2, 2, False)
    assert (CreateUser.pinned, OldUser.pinned) == (None, None)
    assert CreateUser.V1.resolve_version() == (1, CreateUser.V1)


def test_a_version_is_resolved_to_its_class() -> None:
    assert CreateUser.resolve_version() == (2, CreateUser.V2)
    assert CreateUser.resolve_version(1) == (1, CreateUser.V1)


@pytest.mark.parametrize("version", [99, 0, True, "1"])
def test_an_unknown_version_is_refused_with_the_available_ones(version: Any) -> None:
    with pytest.raises(InvalidValue, match=rf"version {version!r} not found in CreateUser\. Available: \[1, 2\]"):
        CreateUser.resolve_version(version)


def test_an_explicit_version_overrides_version_for_and_that_the_current_one() -> None:
    assert CreateUser.choose_version(1, {"wanted": 2}) == (1, CreateUser.V1)
    assert CreateUser.choose_version(None, {"wanted": 1}) == (1, CreateUser.V1)
    assert CreateUser.choose_version(None, {}) == (2, CreateUser.V2)
    with pytest.raises(InvalidValue, match="version 3 not found"):
        CreateUser.choose_version(None, {"wanted": 3})


def test_version_for_gets_the_versions_and_the_options() -> None:
    asked.clear()
    CreateUser.choose_version(None, {"tenant": "acme"})
    assert asked == [(CreateUser.versions, {"tenant": "acme"})]


def test_a_workflow_without_versions_does_not_call_version_for() -> None:
    class Plain(OldUser, unique=Unique("userid")):
        @classmethod
        def version_for(cls, versions: Mapping[int, type[Workflow[Any]]], options: Mapping[str, Any]) -> int | None:
            raise AssertionError

    assert Plain.choose_version(None, {}) == (1, Plain)
    assert Plain.versions == {1: Plain}


def test_versions_may_be_defined_before_their_workflow() -> None:
    class LoadV1(Workflow[Any], unique=Unique("load")):
        initial = store
        transitions = STORING

    class LoadV2(Workflow[Any], unique=Unique("load"), version=2):
        initial = store
        transitions = STORING

    class Load(Workflow[Any], unique=Unique("load"), versions={2: LoadV2, 1: LoadV1}, current=1):
        pass

    assert list(Load.versions) == [1, 2]
    assert LoadV2.name == LoadV2.graph.name == "Load"


def test_a_version_may_subclass_another() -> None:
    class Grow(Workflow[Any], unique=Unique("k"), current=2):
        class V1(Workflow[Any], version=1):
            initial = store
            transitions = STORING

        class V2(V1, version=2, queue="slow"):
            pass

        versions = {1: V1, 2: V2}

    assert Grow.V2.graph.digest() == Grow.V1.graph.digest()
    assert Grow.V2.graph.nodes["store"].queue == "slow"


def test_an_invalid_version_is_reported_with_the_class_around_it() -> None:
    with pytest.raises(DefinitionError, match=r"^Broken\.V1 has no initial step"):

        class Broken(Workflow[Any], unique=Unique("k"), current=1):
            class V1(Workflow[Any], version=1):
                transitions = STORING


def test_the_calls_of_versions_go_to_the_app_of_their_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "open_apps", WeakSet())

    class Bound(Workflow[Any], unique=Unique("k"), current=1):
        class V1(Workflow[Any], version=1):
            initial = store
            transitions = STORING

        versions = {1: V1}

    with pytest.raises(NotBound):
        Bound.V1.get("v")
    app = Pgflow("host=nowhere", workflows=[Bound])
    assert Bound.V1.bound() is Bound.bound() is app


def test_a_registry_has_a_versioned_workflow_by_name_and_all_versions() -> None:
    registry = Registry([CreateUser])
    assert registry.named("CreateUser") is CreateUser
    assert registry.versions == [CreateUser.V1, CreateUser.V2]
    with pytest.raises(DefinitionError, match="two workflows are named CreateUser"):
        Registry([CreateUser, CreateUser.V1])


def test_a_version_without_its_workflow_cannot_run() -> None:
    class Lost:
        class V1(Workflow[Any], version=1):
            initial = store
            transitions = STORING

    with pytest.raises(DefinitionError, match=r"^Lost\.V1 has no business key") as caught:
        Registry([Lost.V1])
    assert caught.value.hint is not None
    assert "`versions` of the class around it" in caught.value.hint


def versioned(
    *, options: dict[str, Any] | None = None, versions: Any = None, body: dict[str, Any] | None = None
) -> Any:
    """Return a versioned workflow U with a version V1 in its body, as a class statement would create it."""

    def part(number: int, **more: Any) -> Any:
        def fill(space: dict[str, Any]) -> None:
            space.update(initial=store, transitions=STORING, __qualname__=f"U.V{number}", __module__=__name__)

        return new_class(f"V{number}", (Workflow,), {"version": number, **more}, fill)

    given = {1: part(1)} if versions is None else versions(part)

    def fill(space: dict[str, Any]) -> None:
        space.update({"versions": given, "__qualname__": "U", "__module__": __name__, **(body or {})})

    return new_class("U", (Workflow,), {"unique": Unique("k"), "current": 1, **(options or {})}, fill)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a version beside versions": ({"options": {"version": 1}}, "U: cannot use both version and versions"),
    "versions twice": ({"options": {"versions": {1: OldUser}}}, "U has versions twice"),
    "a queue": (
        {"options": {"queue": "slow"}},
        "U has versions and no steps of its own: give retry, queue",
    ),
    "a retry": ({"options": {"retry": Retry(max_attempts=2)}}, "U has versions and no steps of its own"),
    "no key": ({"options": {"unique": None}}, "U has no business key"),
    "bad tags": ({"options": {"tags": "x"}}, "U: tags must be a list of strings"),
    "steps": ({"body": {"initial": store}}, "U has versions, so it cannot have initial of its own: move it into one"),
    "transitions": ({"body": {"transitions": STORING}}, "U has versions, so it cannot have transitions of its own"),
    "no mapping": ({"versions": lambda part: [part(1)]}, r"U: versions is \[.*\]: write versions = \{1: V1, 2: V2\}"),
    "nothing": ({"versions": lambda part: {}}, r"U: versions is \{\}: write versions"),
    "key zero": (
        {"versions": lambda part: {1: part(1), 0: part(1), "2": part(1)}},
        "U: the keys of versions must be whole numbers from 1, these are not: 0, '2'",
    ),
    "no current": ({"options": {"current": None}}, "U has no current version: choose the one that starts use"),
    "another current": ({"options": {"current": 9}}, r"U: current=9 is not a key of versions \(available: 1\)"),
    "current is true": ({"options": {"current": True}}, r"U: current=True is not a key of versions"),
    "no workflow": ({"versions": lambda part: {1: "V1"}}, "U: version 1 is 'V1', which is not a workflow"),
    "another class": ({"versions": lambda part: {1: int}}, "U: version 1 is <class 'int'>, which is not a workflow"),
    "an versioned within": (
        {"versions": lambda part: {1: CreateUser}},
        "U: version 1 is CreateUser, which has versions",
    ),
    "another number": (
        {"versions": lambda part: {1: part(2)}},
        r"U: version 1 is U\.V2, which has version=2: make the two equal",
    ),
    "elsewhere": (
        {"versions": lambda part: {1: OldUser}},
        "U: version 1 is OldUser, which must be nested under U: put its class into that of U, begin its name with U",
    ),
    "another key": (
        {"versions": lambda part: {1: part(1, unique=Unique("other"))}},
        r"U: version 1 has a business key of its own, Unique\(key='other', scope='workflow'\): leave it out",
    ),
    "another scope": ({"versions": lambda part: {1: part(1, unique=Unique("k", "version"))}}, "a business key of its"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_invalid_versioned_workflow_is_refused(what: str) -> None:
    given, expected = REFUSED[what]
    with pytest.raises(DefinitionError, match=expected):
        versioned(**given)


def test_a_class_is_a_version_of_one_workflow_only() -> None:
    taken = versioned().versions
    with pytest.raises(DefinitionError, match=r"U: version 1 is U\.V1, which is already a version of U"):
        versioned(versions=lambda part: taken)


def test_a_current_version_needs_versions() -> None:
    with pytest.raises(DefinitionError, match="Single: current=1 needs versions to choose from"):

        class Single(Workflow[Any], unique=Unique("k"), current=1):
            initial = store
            transitions = STORING
