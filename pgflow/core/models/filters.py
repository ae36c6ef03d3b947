"""The filters of `list` and `query`, the same in memory and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, TypeAlias, TypedDict, get_args

from pgflow.core.definition.definition import VersionSet
from pgflow.core.definition.step import Target, as_step
from pgflow.core.engine.state import Status
from pgflow.core.models.instance import Instance
from pgflow.core.values.containment import contains
from pgflow.core.values.names import check_options
from pgflow.core.values.payload import METADATA_LIMIT, decode, encode
from pgflow.core.values.query_args import check_tag_filter, check_text, encode_filter, is_integer, refuse
from pgflow.errors import InvalidValue

__all__ = [
    "DEFAULT_PAGE_SIZE",
    "MAX_PAGE_SIZE",
    "Filters",
    "Head",
    "ListOptions",
    "Order",
    "QueryOptions",
    "read_statuses",
]

Order: TypeAlias = Literal["newest", "oldest"]

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 10_000
MAX_RUN_ID = 2**63 - 1
MAX_VERSION = 2**31 - 1


class ListOptions(TypedDict, total=False):
    """Filters for instances; an instance must match all of them.

    - `status`: one status or several.
    - `id`: a whole business id.
    - `version`: a number.
    - `family`: a prefix of the workflow's name.
    - `tags`: tags that the instance has, all of them.
    - `metadata`, `input`: JSON that the instance's contains, as `@>` in PostgreSQL: an object contains objects with a
      subset of its keys, an array contains arrays of some of its elements.
    - `steps`: the same for outputs, by step or by its key.
    - `order`: "newest" (default) or "oldest" first.
    - `limit`: instances in a page, from 1 to 10,000, by default 50.
    - `before`, `after`: the run id of the previous page's last instance, with the newest or the oldest first.
    """

    status: str | Sequence[str] | None
    id: str | None
    version: int | None
    family: str | None
    tags: Sequence[str] | None
    metadata: Mapping[str, Any] | None
    input: Any
    steps: Mapping[str | Target, Any] | None
    order: Order
    before: int | None
    after: int | None
    limit: int


class QueryOptions(TypedDict, total=False):
    """The filters of a storage's `query`, as in `ListOptions`, but without a default limit.

    `status_in` applies in addition to `status`; `workflow` is a class or a name.
    """

    id: str | None
    status: Status | None
    status_in: Iterable[Status] | None
    workflow: str | type[Any] | None
    workflow_version: int | None
    workflow_family: str | None
    tags: Iterable[str] | None
    metadata: Mapping[str, Any] | None
    input: Any
    steps: Mapping[str | Target, Any] | None
    order: Order
    before: int | None
    after: int | None
    limit: int | None


class Head(Protocol):
    """Identity and status of an instance: the part of an `Instance` that filters can check without its history."""

    @property
    def run(self) -> int: ...
    @property
    def id(self) -> str: ...
    @property
    def workflow(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def status(self) -> Status: ...
    @property
    def tags(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Filters:
    """Validated filters. None, and empty `tags` and `steps`, match every instance.

    `metadata`, `input` and the values of `steps` are JSON text. A `limit` of None means all.

        Filters.of({"status": "failed", "tags": ["gift"]}, OrderFlow).matches(instance)
    """

    workflow: str | None = None
    statuses: tuple[str, ...] | None = None
    id: str | None = None
    version: int | None = None
    family: str | None = None
    tags: tuple[str, ...] = ()
    metadata: str | None = None
    input: str | None = None
    steps: tuple[tuple[str, str], ...] = ()
    oldest: bool = False
    before: int | None = None
    after: int | None = None
    limit: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any], workflow: str | type[Any] | VersionSet | None = None) -> Self:
        """Return the filters given to `list`; the class of a single version filters by that version.

        Raises `UnknownOption` for an unknown filter, and `InvalidValue` or `InvalidPayload` for an invalid value.
        """
        check_options("filter", options, ListOptions)
        limit = options.get("limit", DEFAULT_PAGE_SIZE)
        if not is_integer(limit, 1, MAX_PAGE_SIZE):
            refuse("limit", limit, f"a page has 1 to {MAX_PAGE_SIZE:,} instances", "Read on with before= or after=.")
        return cls._read(options, workflow, read_statuses(options.get("status")), options.get("version"), limit)

    @classmethod
    def of_query(cls, options: Mapping[str, Any]) -> Self:
        """Return the filters given to a storage's `query`. Raises as `of` does."""
        check_options("filter", options, QueryOptions)
        limit = options.get("limit")
        if limit is not None and not is_integer(limit, 1, MAX_RUN_ID):
            refuse("limit", limit, "it must be a whole number from 1, or None for all")
        statuses = read_statuses(options.get("status_in"))
        also = read_statuses(options.get("status"))
        if also is not None:
            statuses = tuple(each for each in also if statuses is None or each in statuses)
        plain = {**options, "family": options.get("workflow_family")}
        return cls._read(plain, options.get("workflow"), statuses, options.get("workflow_version"), limit)

    @classmethod
    def of_id(cls, id: Any, workflow: str | type[Any] | None, version: int | None) -> Self:  # noqa: A002 -- as in ListOptions
        """Return the filters for the newest run of a business id. Raises `InvalidValue`."""
        if id is None:
            refuse("id", id, "it must be a whole business id")
        return cls.of_query({"id": id, "workflow": workflow, "workflow_version": version, "limit": 1})

    @property
    def named(self) -> str:
        """The business id, workflow and version of these filters, for messages."""
        of = "" if self.workflow is None else f" of {self.workflow}"
        return f"{self.id!r}{of}" + ("" if self.version is None else f", version {self.version}")

    @classmethod
    def _read(
        cls,
        options: Mapping[str, Any],
        workflow: str | type[Any] | VersionSet | None,
        statuses: tuple[str, ...] | None,
        version: Any,
        limit: int | None,
    ) -> Self:
        pinned = None if workflow is None or isinstance(workflow, str) else workflow.pinned
        if version is not None and not is_integer(version, 1, MAX_VERSION):
            refuse("version", version, "it must be a whole number from 1")
        if pinned is not None and version not in (None, pinned):
            refuse("version", version, f"this class is version {pinned}", "List the class around it.")
        order = options.get("order", "newest")
        if order not in get_args(Order):
            refuse("order", order, 'it must be "newest" or "oldest"')
        for name in ("before", "after"):
            if (run := options.get(name)) is not None and not is_integer(run, 0, MAX_RUN_ID):
                refuse(name, run, "it must be a run id")
        return cls(
            workflow=check_text(
                "workflow", workflow if workflow is None or isinstance(workflow, str) else workflow.name
            ),
            statuses=statuses,
            id=check_text("id", options.get("id")),
            version=pinned if version is None else version,
            family=check_text("family", options.get("family")),
            tags=check_tag_filter(options.get("tags")),
            metadata=encode_filter("metadata", options.get("metadata")),
            input=encode_filter("input", options.get("input")),
            steps=_steps(options.get("steps")),
            oldest=order == "oldest",
            before=options.get("before"),
            after=options.get("after"),
            limit=limit,
        )

    def matches_head(self, head: Head) -> bool:
        """Whether an instance matches the filters that need only its head."""
        return (
            self.workflow in (None, head.workflow)
            and (self.statuses is None or head.status in self.statuses)
            and self.id in (None, head.id)
            and self.version in (None, head.version)
            and (self.family is None or head.workflow.startswith(self.family))
            and set(self.tags).issubset(head.tags)
            and (self.before is None or head.run < self.before)
            and (self.after is None or head.run > self.after)
        )

    def matches(self, instance: Instance) -> bool:
        """Whether an instance, with its `steps`, matches all filters."""
        return (
            self.matches_head(instance)
            and (self.metadata is None or contains(instance.metadata, decode(self.metadata)))
            and (self.input is None or contains(instance.input, decode(self.input)))
            and all(key in instance.steps and contains(instance.steps[key], decode(part)) for key, part in self.steps)
        )

    def page(self, found: Iterable[Instance]) -> list[Instance]:
        """Return the matching instances of `found`, in the requested order, up to the limit."""
        kept = sorted(filter(self.matches, found), key=lambda each: each.run, reverse=not self.oldest)
        return kept[: self.limit]


def read_statuses(given: Any) -> tuple[str, ...] | None:
    """Return one status or several as a tuple, None for None. Raises `InvalidValue`."""
    if given is None:
        return None
    if not isinstance(given, str | Iterable):
        refuse("status", given, "it must be a status or several")
    statuses = tuple(dict.fromkeys([given] if isinstance(given, str) else given))
    for each in statuses:
        if each not in get_args(Status):
            raise InvalidValue(f"the status {each!r} is unknown", hint=f"Known: {', '.join(get_args(Status))}.")
    return statuses


def _steps(given: Any) -> tuple[tuple[str, str], ...]:
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        refuse("steps", given, "it must be a dict of steps and what their outputs contain")
    keys = [str(check_text("steps", each)) if isinstance(each, str) else as_step(each).key for each in given]
    return tuple(
        (key, encode(part, what=f"steps.{key}", limit=METADATA_LIMIT))
        for key, part in zip(keys, given.values(), strict=True)
    )
