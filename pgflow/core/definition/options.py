"""The options of a workflow, given as keywords of its class."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from pgflow.core.definition.hooks import read_hooks
from pgflow.core.definition.partition import read_partition, read_weight
from pgflow.core.definition.retain import Retain
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.rules.problems import Problems, defect_of
from pgflow.core.definition.task import TaskDefinition
from pgflow.core.definition.unique import Unique
from pgflow.core.values.duration import is_duration, plain
from pgflow.core.values.names import check_tags, is_event, is_queue
from pgflow.core.values.payload import DEPTH_LIMIT, METADATA_LIMIT, decode, encode
from pgflow.errors import DefinitionError, InvalidPayload, InvalidValue

__all__ = [
    "Options",
    "is_priority",
    "is_version",
    "read_metadata",
    "read_options",
    "read_priority",
    "read_queue",
    "read_retain",
    "read_retry",
    "read_tags",
    "refuse_defect",
]

CLASS_OPTIONS = (
    "versions",
    "current",
    "app",
    "on_success",
    "on_failure",
    "on_cancel",
)  # keywords of the class that are not options of a graph
MAX_VERSION = 2**31 - 1
PRIORITIES = range(-(2**15), 2**15)


@dataclass(frozen=True, slots=True)
class Options:
    """A workflow's validated options; `unique` is None for a version that takes it from the workflow around it."""

    name: str
    unique: Unique | None
    version: int
    tags: tuple[str, ...]
    metadata: Mapping[str, Any]
    retry: Retry | None
    queue: str
    priority: int
    orchestration_queue: str | None = None
    partition_by: tuple[str, ...] = ()
    weight: int = 1
    deadline: timedelta | None = None
    retain: Retain | None = None
    hooks: Mapping[str, TaskDefinition] = field(default_factory=dict)


def read_options(
    class_name: str,
    *,
    unique: Any,
    version: Any,
    tags: Any,
    metadata: Any,
    retry: Any,
    queue: Any,
    priority: Any,
    orchestration_queue: Any,
    partition_by: Any,
    weight: Any,
    deadline: Any,
    retain: Any,
    hooks: Mapping[str, Any],
    name: Any,
    unknown: Mapping[str, Any],
    may_lack_key: bool = False,
) -> Options:
    """Return the options of a workflow. Raises `DefinitionError` for invalid and unknown ones.

    `may_lack_key` is for a class in the body of another, which provides the business key.
    """
    who = class_name if name is None else name
    problems = Problems()
    if not is_event(who):  # one rule for names of workflows and of events
        problems.add(
            [f"{class_name} is named {who!r}: a name must be a string of 1 to 100 characters, without white space"]
        )
        who = class_name
    for option in unknown:
        known = [*(each.name for each in fields(Options) if each.name != "hooks"), *CLASS_OPTIONS]
        near = difflib.get_close_matches(option, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(sorted(known))}"
        problems.add([f"{who}: there is no option {option!r}; {hint}"])
    rule = problems.check
    options = Options(
        name=who,
        tags=rule((), read_tags, who, tags),
        metadata=rule({}, read_metadata, who, metadata),
        unique=None if may_lack_key and unique is None else rule(None, _unique, who, unique),
        version=rule(1, _version, who, version),
        retry=rule(None, read_retry, who, retry),
        queue=rule("default", read_queue, who, "queue", queue),
        priority=rule(0, read_priority, who, priority),
        orchestration_queue=(
            None
            if orchestration_queue is None
            else rule(None, read_queue, who, "orchestration_queue", orchestration_queue)
        ),
        partition_by=rule((), read_partition, who, partition_by),
        weight=rule(1, read_weight, who, weight),
        deadline=rule(None, _deadline, who, deadline),
        retain=rule(None, read_retain, who, retain),
        hooks=rule({}, read_hooks, who, hooks),
    )
    problems.raise_if_any()
    return options


def read_tags(who: str, tags: Any) -> tuple[str, ...]:
    """Return the tags of a workflow or a task, without duplicates. Raises `DefinitionError`."""
    is_list = isinstance(tags, Sequence) and not isinstance(tags, str)
    if not is_list or not all(isinstance(tag, str) and tag and tag.isprintable() for tag in tags):
        raise DefinitionError(f'{who}: tags must be a list of strings, got {tags!r}: write tags=["orders"]')
    try:
        return check_tags(dict.fromkeys(tags))
    except InvalidValue as error:
        raise DefinitionError(f"{who}: {error}") from None


def read_metadata(who: str, metadata: Any) -> Mapping[str, Any]:
    """Return a copy of its metadata. Raises `DefinitionError`."""
    if metadata is None:
        return MappingProxyType({})
    if not isinstance(metadata, dict):
        raise DefinitionError(f'{who}: metadata must be a dict, got {metadata!r}: write metadata={{"team": "orders"}}')
    _check_json(f"{who}: metadata", metadata)
    try:
        text = encode(metadata, what="metadata", limit=METADATA_LIMIT)
    except InvalidPayload as error:
        raise DefinitionError(f"{who}: {error}") from None
    return MappingProxyType(decode(text))  # a copy: later changes of the caller's dict have no effect


def _check_json(where: str, value: Any, depth: int = 0) -> None:
    """Refuse values that JSON would not return unchanged, which `encode` would convert."""
    if depth > DEPTH_LIMIT:
        raise DefinitionError(f"{where} is more than {DEPTH_LIMIT} levels deep: flatten it, or look for a cycle")
    match value:
        case None | bool() | str() | int() | float():
            return
        case list():
            for index, item in enumerate(value):
                _check_json(f"{where}[{index}]", item, depth + 1)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise DefinitionError(f"{where} has the key {key!r}, which JSON cannot represent: use a string")
                _check_json(f"{where}[{key!r}]", item, depth + 1)
        case _:
            raise DefinitionError(
                f"{where} is {value!r}, which JSON cannot represent: "
                "use strings, numbers, booleans, None, lists and dicts"
            )


def _unique(who: str, unique: Any) -> Unique:
    if unique is None:
        raise DefinitionError(
            f'{who} has no business key: add one, as in class {who}(Workflow[…], unique=Unique("orderid"))'
        )
    if not isinstance(unique, Unique):
        raise DefinitionError(f'{who}: unique is {unique!r}: write unique=Unique("orderid")')
    refuse_defect(who, unique)
    return unique


def is_version(number: object) -> bool:
    """Whether `number` can be a version: a whole number from 1 to 2,147,483,647."""
    return isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_VERSION


def _version(who: str, version: Any) -> int:
    if not is_version(version):
        raise DefinitionError(f"{who}: version must be a whole number from 1, got {version!r}: begin with version=1")
    return int(version)


def read_retry(who: str, retry: Any) -> Retry | None:
    """Return its retry policy. Raises `DefinitionError`."""
    if retry is not None and not isinstance(retry, Retry):
        raise DefinitionError(f"{who}: retry is {retry!r}: write a policy, as in retry=Retry(max_attempts=8)")
    refuse_defect(who, retry)
    return retry


def read_retain(who: str, retain: Any) -> Retain | None:
    """Return a retention. Raises `DefinitionError`."""
    if retain is not None and not isinstance(retain, Retain):
        raise DefinitionError(f"{who}: retain is {retain!r}: write retain=Retain(completed=timedelta(days=30))")
    refuse_defect(who, retain)
    return retain


def refuse_defect(who: str, given: object) -> None:
    """Raise `DefinitionError` for a part whose problem was collected."""
    defect = defect_of(given)
    if defect is not None:
        raise DefinitionError(f"{who}: {defect}")


def read_queue(who: str, option: str, queue: Any) -> str:
    """Return the name of a queue. Raises `DefinitionError`."""
    if not is_queue(queue):
        raise DefinitionError(f"{who}: {option} is {queue!r}: use up to 63 letters, digits, '_', '-' and '.'")
    return str(queue)


def _deadline(who: str, deadline: Any) -> timedelta | None:
    if deadline is not None and not (is_duration(deadline) and deadline):
        raise DefinitionError(f"{who}: deadline is {deadline!r}: write a timedelta of more than zero, up to 100 years")
    return None if deadline is None else plain(deadline)


def is_priority(number: object) -> bool:
    """Whether `number` can be a priority: a smallint."""
    return isinstance(number, int) and not isinstance(number, bool) and number in PRIORITIES


def read_priority(who: str, priority: Any) -> int:
    """Return its priority. Raises `DefinitionError`."""
    if not is_priority(priority):
        raise DefinitionError(
            f"{who}: priority must be a whole number from {PRIORITIES[0]} (first) to {PRIORITIES[-1]} (last), "
            f"got {priority!r}"
        )
    return int(priority)
