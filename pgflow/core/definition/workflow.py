"""The definition part of a workflow class: options and body, validated when the class is created."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, Never, Protocol, TypeVar

from pydantic import TypeAdapter

from pgflow.core.definition.definition import Definition, VersionSet
from pgflow.core.definition.graph import Graph
from pgflow.core.definition.hooks import hook_spec
from pgflow.core.definition.input import Input, declared_type
from pgflow.core.definition.options import Options, read_options
from pgflow.core.definition.partition import check_partition
from pgflow.core.definition.retain import Retain
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.rules.build import (
    Declaration,
    Transitions,
    input_problems,
    policy_problems,
    read_declaration,
)
from pgflow.core.definition.rules.callables import arity_problem, is_async, is_generator
from pgflow.core.definition.rules.problems import Problems, try_collect
from pgflow.core.definition.step import Target
from pgflow.core.definition.task import DefinedTask
from pgflow.core.definition.unique import Unique
from pgflow.core.definition.versions import Versions, is_nested, read_versions
from pgflow.core.values.absent import Absent, is_optional
from pgflow.core.values.payload import INPUT_LIMIT
from pgflow.errors import DefinitionError

__all__ = ["DefinedWorkflow"]

I = TypeVar("I")  # noqa: E741 -- the input
UNSET: Final[Any] = object()  # distinguishes an explicit version=1 next to `versions`


class App(Protocol):
    """An app, as the option `app` needs it."""

    def adopt(self, workflow: type[Any]) -> None: ...


class DefinedWorkflow(Generic[I]):
    """The part of `Workflow` that turns a class into a definition: validates its options and its body.

    `definition` is the value of a class with a graph. `definitions` are those that a call on the class addresses: its
    own one, or those of all versions.
    """

    initial: ClassVar[Target]
    transitions: ClassVar[Transitions]
    versions: ClassVar[Mapping[int, type[DefinedWorkflow[Any]]]]

    name: ClassVar[str]
    unique: ClassVar[Unique]
    version: ClassVar[int | None]
    current_version: ClassVar[int]
    pinned: ClassVar[int | None] = None
    versioned_workflow: ClassVar[type[DefinedWorkflow[Any]] | None] = None
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
    _declared: ClassVar[Declaration]
    _is_template: ClassVar[bool]  # set in the body of `Workflow`, which is not a workflow itself

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
        partition_by: str | None = None,
        weight: int = 1,
        deadline: timedelta | None = None,
        retain: Retain | None = None,
        on_success: DefinedTask | None = None,
        on_failure: DefinedTask | None = None,
        on_cancel: DefinedTask | None = None,
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
        cls.pinned, cls.versioned_workflow, cls.is_versioned, cls.is_valid = None, None, has_versions, True
        called = _nested_name(cls) if is_part else cls.__name__
        problems = Problems()
        if app is not None and not hasattr(app, "adopt"):
            problems.add([f"{cls.__name__}: app is {app!r}, which is not an app: write app=Pgflow(dsn)"])
        options = problems.check(
            None,
            read_options,
            called,
            unique=unique,
            version=1 if version is UNSET else version,
            tags=tags,
            metadata=metadata,
            retry=retry,
            queue=queue,
            priority=priority,
            orchestration_queue=orchestration_queue,
            partition_by=partition_by,
            weight=weight,
            deadline=deadline,
            retain=retain,
            hooks={"success": on_success, "failure": on_failure, "cancel": on_cancel},
            name=name,
            unknown=unknown,
            may_lack_key=is_part,
        )
        who = called if options is None else options.name
        try:
            if has_versions:
                if options is not None:
                    _check_versioned_options(options, version, versions, in_body, problems)
                    given = in_body if versions is None else versions
                    read = problems.check(None, read_versions, cls, DefinedWorkflow, options, given, current)
            else:
                if current is not None:
                    fix = "write versions = {1: V1, 2: V2}"
                    problems.add([f"{who}: current={current!r} needs versions to choose from: {fix}"])
                first, transitions = getattr(cls, "initial", None), getattr(cls, "transitions", None)
                declared = problems.check(None, read_declaration, who, first, transitions)
            kind = declared_type(cls, _template(cls))
            read_input = problems.check(None, Input.of, who, kind)
            if not has_versions and declared is not None:
                problems.add(input_problems(who, declared, kind))
                if options is not None:
                    problems.add(policy_problems(who, declared, options.retry))
            problems.add(_hook_problems(who, cls))
            if options is not None and read_input is not None:
                problems.check(None, check_partition, who, options.partition_by, kind, read_input.secrets)
            problems.raise_if_any()
        except DefinitionError as error:
            cls._mark_invalid(who)
            if not try_collect(error):
                raise
            return
        assert options is not None  # noqa: S101 -- for the type checker: otherwise there were problems
        assert read_input is not None  # noqa: S101 -- likewise
        cls._options, cls._input = options, read_input
        if has_versions:
            if read is None:  # one of the version classes is invalid, which is reported
                cls._mark_invalid(who)
                return
            cls._adopt_versions(read)
        elif declared is not None:
            cls._declared = declared
            cls._build_graph(options)
        if app is not None:
            app.adopt(cls)

    @classmethod
    def _mark_invalid(cls, name: str) -> None:
        """Become a placeholder for an invalid class, which is visible only while problems are collected."""
        cls.is_valid, cls.name, cls.versions = False, name, MappingProxyType({})

    @classmethod
    def _build_graph(cls, options: Options) -> None:
        """Become a workflow with a graph."""
        declared = cls._declared
        cls._set_identity(options)
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
            partition_by=options.partition_by,
            weight=options.weight,
            deadline=options.deadline,
            retain=options.retain,
            hooks=hook_spec(options.hooks),
            has_optional_input=is_optional(cls._input.kind),
        )
        cls.definition = Definition(cls.graph, options, cls._input)
        cls._set_definitions(options, {options.version: cls.definition})

    @classmethod
    def _adopt_versions(cls, versions: Versions) -> None:
        """Become a versioned workflow: the versions take its name and key, and add its tags and metadata to theirs."""
        above = cls._options
        cls._set_identity(above)
        cls.version = None
        cls.versions = versions.by_number
        cls.current_version = versions.current
        for number, version in versions.by_number.items():
            own = version._options
            version.pinned, version.versioned_workflow = number, cls
            version._build_graph(
                replace(
                    own,
                    name=above.name,
                    unique=above.unique,
                    tags=tuple(dict.fromkeys([*above.tags, *own.tags])),
                    metadata=MappingProxyType({**above.metadata, **own.metadata}),
                    retain=own.retain or above.retain,
                )
            )
        cls._set_definitions(above, {number: version.definition for number, version in versions.by_number.items()})

    @classmethod
    def _set_definitions(cls, options: Options, definitions: Mapping[int, Definition]) -> None:
        unique: Any = getattr(cls, "unique", None)  # a version has none until its workflow is created
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
    def _set_identity(cls, options: Options) -> None:
        cls.name = options.name
        if options.unique is not None:
            cls.unique = options.unique
        cls.tags = options.tags
        cls.metadata = options.metadata
        cls._input = replace(cls._input, workflow=options.name)
        cls.input_type = cls._input.kind
        cls.input_adapter = cls._input.adapter

    @classmethod
    def declared_unique(cls) -> Unique | None:
        """Return the business key that the class itself declares; None for a version that leaves it to its workflow."""
        return cls._options.unique

    @classmethod
    def write_input(
        cls, value: I | Mapping[str, Any] | Absent, *, reveal: bool = False, limit: int = INPUT_LIMIT
    ) -> str:
        """Return an input, a model or a dict, validated and as JSON text; for `ABSENT` the type's default.

        With `reveal` it may contain secrets, for callers that encrypt the text; `limit` is its size in bytes. Raises
        `InvalidInput`, `InvalidPayload`, `UnencryptedSecret`.
        """
        return cls._input.write(value, reveal=reveal, limit=limit)

    @classmethod
    def declared_secrets(cls) -> tuple[str, ...]:
        """Return the paths at which the input and the outputs of all versions declare secrets.

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
        """Return a version's number and class, the current one for None. Raises `InvalidValue` for an unknown version.

        CreateUser.resolve_version()     # (2, CreateUser.V2)
        OrderFlow.resolve_version()      # (1, OrderFlow): it has a single version
        """
        number = cls.definitions.resolve(version).version
        return number, cls.versions[number]

    @classmethod
    def version_for(cls, versions: Mapping[int, type[Any]], options: Mapping[str, Any]) -> int | None:
        """Return the version for a start that does not name one; None, the default, for the current version.

        Override it in a versioned workflow. `versions` maps numbers to classes. `options` has all arguments of the
        start (`value`, `input`, `delay`, `tags`, …) and the items of its `options=`, which is used only here.

            @classmethod
            def version_for(cls, versions, options):
                return 1 if options.get("tenant") == "acme" else None

            CreateUser.start("u-1", user, options={"tenant": "acme"})
        """
        return None

    @classmethod
    def choose_version(cls, version: int | None, options: Mapping[str, Any]) -> tuple[int, type[Any]]:
        """Return the version for a start: the one it names, else that of `version_for`, else the current one.

        Raises `InvalidValue`.
        """
        return cls.resolve_version(cls.definitions.choose_for(options).version if version is None else version)


def _template(cls: type[Any]) -> type[Any]:
    """Return `Workflow`, the class that declares `_is_template`."""
    return next(each for each in cls.__mro__ if "_is_template" in each.__dict__)


def _nested_name(cls: type[Any]) -> str:
    """Return the name of a nested class in messages: with the class around it."""
    return ".".join(cls.__qualname__.split(".")[-2:])


def _hook_problems(who: str, cls: type[DefinedWorkflow[Any]]) -> Iterator[str]:
    hook: Any = cls.version_for
    fix = "write @classmethod and `def version_for(cls, versions, options)`"
    if not callable(hook) or is_async(hook) or is_generator(hook):
        yield f"{who}: version_for must be a plain method that returns the number of a version: {fix}"
    elif (problem := arity_problem(hook, "versions", "options")) is not None:
        yield f"{who}: version_for cannot be called: {problem}: {fix}"


def _check_versioned_options(options: Options, version: Any, versions: Any, in_body: Any, problems: Problems) -> None:
    who = options.name
    if version is not UNSET:
        problems.add([f"{who}: cannot use both version and versions: the keys of versions are the numbers"])
    if versions is not None and in_body is not None:
        problems.add([f"{who} has versions twice: keep either those in the class body or the option"])
    own = (options.retry, options.priority, options.orchestration_queue, options.partition_by, options.weight > 1)
    if options.queue != "default" or options.deadline is not None or options.hooks or any(own):
        fix = "give retry, queue, priority, deadline and hooks to the versions"
        problems.add([f"{who} has versions and no steps of its own: {fix}"])
