"""How a workflow class becomes a definition: its first step and where each event of each step leads, checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, Never, Protocol, TypeVar

from pydantic import TypeAdapter

from pgflow.core.definition.definition import Definition, VersionSet
from pgflow.core.definition.graph import Graph
from pgflow.core.definition.input import Input, declared_type
from pgflow.core.definition.options import Options, check
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.rules.build import Declared, Transitions, check_input, read
from pgflow.core.definition.rules.callables import arity_problem, is_async, is_generator
from pgflow.core.definition.rules.problems import Problems, try_collect
from pgflow.core.definition.step import Target
from pgflow.core.definition.unique import Unique
from pgflow.core.definition.versions import Umbrella, is_nested, read_umbrella
from pgflow.core.values.absent import Absent, is_optional
from pgflow.errors import DefinitionError

__all__ = ["DefinedWorkflow"]

I = TypeVar("I")  # noqa: E741 -- the input
UNSET: Final[Any] = object()  # so that an explicit version=1 beside versions is noticed


class App(Protocol):
    """What the option `app` needs: an app that takes a workflow in."""

    def adopt(self, workflow: type[Any]) -> None: ...


class DefinedWorkflow(Generic[I]):
    """What makes a `Workflow` class a definition: its options and its body, checked when the class is made.

    `definition` is the value that a class with a graph produces, and `definitions` what a call on the class addresses:
    its own definition, or those of an umbrella's versions.
    """

    initial: ClassVar[Target]
    transitions: ClassVar[Transitions]
    versions: ClassVar[Mapping[int, type[DefinedWorkflow[Any]]]]

    name: ClassVar[str]
    unique: ClassVar[Unique]
    version: ClassVar[int | None]
    current_version: ClassVar[int]
    pinned: ClassVar[int | None] = None
    umbrella: ClassVar[type[DefinedWorkflow[Any]] | None] = None
    tags: ClassVar[tuple[str, ...]]
    metadata: ClassVar[Mapping[str, Any]]
    retry_policy: ClassVar[Retry | None]
    queue: ClassVar[str]
    orchestration_queue: ClassVar[str | None]
    priority: ClassVar[int]
    graph: ClassVar[Graph]
    definition: ClassVar[Definition]
    definitions: ClassVar[VersionSet]
    is_versioned: ClassVar[bool] = False
    is_valid: ClassVar[bool] = True
    input_type: ClassVar[Any]
    input_adapter: ClassVar[TypeAdapter[Any]]
    _input: ClassVar[Input]
    _options: ClassVar[Options]
    _declared: ClassVar[Declared]
    _is_template: ClassVar[bool]  # in the body of the class that workflows are declared with: it is not one itself

    def __init_subclass__(
        cls,
        *,
        unique: Unique | None = None,
        version: int = UNSET,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        retry: Retry | None = None,
        queue: str = "default",
        priority: int = 0,
        orchestration_queue: str | None = None,
        name: str | None = None,
        versions: Mapping[int, type[DefinedWorkflow[Any]]] | None = None,
        current: int | None = None,
        app: App | None = None,
        **unknown: Never,
    ) -> None:
        super().__init_subclass__()
        if "_is_template" in cls.__dict__:
            return
        in_body = cls.__dict__.get("versions")
        has_versions = versions is not None or in_body is not None
        is_part = not has_versions and version is not UNSET and is_nested(cls)
        cls.pinned, cls.umbrella, cls.is_versioned, cls.is_valid = None, None, has_versions, True
        called = _called(cls) if is_part else cls.__name__
        problems = Problems()
        if app is not None and not hasattr(app, "adopt"):
            problems.add([f"{cls.__name__}: app is {app!r}, which is no app: write app=Pgflow(dsn)"])
        options = problems.check(
            None,
            check,
            called,
            unique=unique,
            version=1 if version is UNSET else version,
            tags=tags,
            metadata=metadata,
            retry=retry,
            queue=queue,
            priority=priority,
            orchestration_queue=orchestration_queue,
            name=name,
            unknown=unknown,
            may_lack_key=is_part,
        )
        who = called if options is None else options.name
        try:
            if has_versions:
                if options is not None:
                    _check_umbrella(options, version, versions, in_body, problems)
                    given = in_body if versions is None else versions
                    umbrella = problems.check(None, read_umbrella, cls, DefinedWorkflow, options, given, current)
            else:
                if current is not None:
                    mend = "write versions = {1: V1, 2: V2}"
                    problems.add([f"{who}: current={current!r} needs versions to choose from: {mend}"])
                first, transitions = getattr(cls, "initial", None), getattr(cls, "transitions", None)
                declared = problems.check(None, read, who, first, transitions)
            kind = declared_type(cls, _template(cls))
            read_input = problems.check(None, Input.of, who, kind)
            if not has_versions and declared is not None:
                problems.add(check_input(who, declared, kind))
            problems.add(_hook_problems(who, cls))
            problems.refuse()
        except DefinitionError as error:
            cls._stay_unusable(who)
            if not try_collect(error):
                raise
            return
        assert options is not None  # noqa: S101 -- for the type checker: else there were problems
        assert read_input is not None  # noqa: S101 -- likewise
        cls._options, cls._input = options, read_input
        if has_versions:
            if umbrella is None:  # one of its versions is wrong, and has been told of
                cls._stay_unusable(who)
                return
            cls._cover(umbrella)
        elif declared is not None:
            cls._declared = declared
            cls._settle(options)
        if app is not None:
            app.adopt(cls)

    @classmethod
    def _stay_unusable(cls, name: str) -> None:
        """Be a class that is wrong: nobody sees it but who collects what is wrong with a module."""
        cls.is_valid, cls.name, cls.versions = False, name, MappingProxyType({})

    @classmethod
    def _settle(cls, options: Options) -> None:
        """Be a workflow with a graph."""
        declared = cls._declared
        cls._introduce(options)
        cls.version = cls.current_version = options.version
        cls.versions = MappingProxyType({options.version: cls})
        cls.retry_policy = options.retry
        cls.queue = options.queue
        cls.orchestration_queue = options.orchestration_queue
        cls.priority = options.priority
        cls.graph = Graph.build(
            options.name,
            declared.initial,
            declared.steps,
            declared.choices,
            version=options.version,
            unique=options.unique,
            priority=options.priority,
            tags=options.tags,
            metadata=options.metadata,
            retry=options.retry,
            queue=options.queue,
            orchestration_queue=options.orchestration_queue,
            has_optional_input=is_optional(cls._input.kind),
        )
        cls.definition = Definition(cls.graph, options, cls._input)
        cls._set_definitions(options, {options.version: cls.definition})

    @classmethod
    def _cover(cls, umbrella: Umbrella) -> None:
        """Be an umbrella: the versions take its name, its key, and its tags and metadata beside their own."""
        above = cls._options
        cls._introduce(above)
        cls.version = None
        cls.versions = umbrella.versions
        cls.current_version = umbrella.current
        for number, version in umbrella.versions.items():
            own = version._options
            version.pinned, version.umbrella = number, cls
            version._settle(
                replace(
                    own,
                    name=above.name,
                    unique=above.unique,
                    tags=tuple(dict.fromkeys([*above.tags, *own.tags])),
                    metadata=MappingProxyType({**above.metadata, **own.metadata}),
                )
            )
        cls._set_definitions(above, {number: version.definition for number, version in umbrella.versions.items()})

    @classmethod
    def _set_definitions(cls, options: Options, definitions: Mapping[int, Definition]) -> None:
        unique: Any = getattr(cls, "unique", None)  # a version has none until its umbrella is made
        cls.definitions = VersionSet(
            name=options.name,
            unique=unique,
            versions=MappingProxyType(definitions),
            current=cls.current_version,
            is_versioned=cls.is_versioned,
            pinned=cls.pinned,
            choose=(lambda given: cls.version_for(cls.versions, given)) if cls.is_versioned else None,
        )

    @classmethod
    def _introduce(cls, options: Options) -> None:
        cls.name = options.name
        if options.unique is not None:
            cls.unique = options.unique
        cls.tags = options.tags
        cls.metadata = options.metadata
        cls._input = replace(cls._input, workflow=options.name)
        cls.input_type = cls._input.kind
        cls.input_adapter = cls._input.adapter

    @classmethod
    def own_unique(cls) -> Unique | None:
        """Return the business key that the class itself declares; None for a version that leaves it to its umbrella."""
        return cls._options.unique

    @classmethod
    def write_input(cls, value: I | Mapping[str, Any] | Absent, *, reveal: bool = False) -> str:
        """Return an input, a model or a dict, validated and as JSON text; for `ABSENT` what it is when it is left out.

        With `reveal` it may hold secrets: for a text that will be sealed. Raises `InvalidInput`, `InvalidPayload`,
        `UnencryptedSecret`.
        """
        return cls._input.write(value, reveal=reveal)

    @classmethod
    def declared_secrets(cls) -> tuple[str, ...]:
        """Return where its input, and the outputs of its steps, declare secrets, in all of its versions.

        Login.declared_secrets()    # ("input.password", "sign_in.output.token")
        """
        return cls.definitions.secrets

    @classmethod
    def read_input(cls, text: str) -> I:
        """Return a stored input in its declared type. Raises `InvalidInput`, `InvalidPayload`."""
        value: I = cls._input.read(text)
        return value

    @classmethod
    def resolve_version(cls, version: int | None = None) -> tuple[int, type[Any]]:
        """Return a version and its class, the current one for None. Raises `InvalidValue` for one that is not there.

        CreateUser.resolve_version()     # (2, CreateUser.V2)
        OrderFlow.resolve_version()      # (1, OrderFlow), which has this one version
        """
        number = cls.definitions.resolve(version).version
        return number, cls.versions[number]

    @classmethod
    def version_for(cls, versions: Mapping[int, type[Any]], options: Mapping[str, Any]) -> int | None:
        """Return the version to start when the caller names none; None, as here, for the current one.

        An umbrella may override it. `options` holds everything that the start was given: `value`, `input`, `delay`,
        `tags`, …, and what the caller passed as `options=`, which goes nowhere else.

            @classmethod
            def version_for(cls, versions, options):
                return 1 if options.get("tenant") == "acme" else None

            CreateUser.start("u-1", user, options={"tenant": "acme"})
        """
        return None

    @classmethod
    def choose_version(cls, version: int | None, options: Mapping[str, Any]) -> tuple[int, type[Any]]:
        """Return the version that a start takes: the one named, else what `version_for` says, else the current one.

        Raises `InvalidValue`.
        """
        return cls.resolve_version(cls.definitions.choose_for(options).version if version is None else version)


def _template(cls: type[Any]) -> type[Any]:
    """Return the class that a workflow is declared with: `Workflow`."""
    return next(each for each in cls.__mro__ if "_is_template" in each.__dict__)


def _called(cls: type[Any]) -> str:
    """Return a nested class as messages name it: with the class around it."""
    return ".".join(cls.__qualname__.split(".")[-2:])


def _hook_problems(who: str, cls: type[DefinedWorkflow[Any]]) -> Iterator[str]:
    hook: Any = cls.version_for
    mend = "write @classmethod and `def version_for(cls, versions, options)`"
    if not callable(hook) or is_async(hook) or is_generator(hook):
        yield f"{who}: version_for is a plain method that returns the number of a version: {mend}"
    elif (problem := arity_problem(hook, "versions", "options")) is not None:
        yield f"{who}: version_for cannot be called: {problem}: {mend}"


def _check_umbrella(options: Options, version: Any, versions: Any, in_body: Any, problems: Problems) -> None:
    who = options.name
    if version is not UNSET:
        problems.add([f"{who}: cannot use both version and versions: the keys of versions are the numbers"])
    if versions is not None and in_body is not None:
        problems.add([f"{who} has versions twice: keep those in the class body, or the option"])
    if options.retry or options.queue != "default" or options.priority or options.orchestration_queue:
        problems.add([f"{who} has versions, so it has no steps: give retry, queue and priority to the versions"])
