"""The options of a task, given to `@task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict

from pgflow.core.definition.hooks import HOOKS, read_hooks
from pgflow.core.definition.options import (
    read_metadata,
    read_priority,
    read_queue,
    read_retain,
    read_retry,
    read_tags,
    refuse_defect,
)
from pgflow.core.definition.parameters import Parameters
from pgflow.core.definition.partition import check_partition, read_partition, read_weight
from pgflow.core.definition.retain import Retain
from pgflow.core.definition.retry import Retry
from pgflow.core.definition.rules.problems import Problems
from pgflow.core.definition.rules.step_rules import CPU_RULE
from pgflow.core.definition.task import DefinedTask
from pgflow.core.definition.unique_task import UniqueTask
from pgflow.core.values.duration import is_duration, plain
from pgflow.core.values.names import check_options
from pgflow.errors import DefinitionError, UnknownOption

__all__ = ["TaskOptions", "read_task_options"]


class TaskOptions(TypedDict, total=False):
    """How the executions of a task run.

    - `queue`: the queue of its jobs, by default "default". `priority`: from -32768 (first) to 32767, by default 0.
    - `retry`: a `Retry` policy, by default five attempts with exponential back-off.
    - `unique`: a `UniqueTask`, so that an execution is not enqueued twice.
    - `max_runtime`: a timedelta after which an attempt fails with `TimeoutError`. An async task is cancelled, the
      process of a `cpu` task is killed; the thread of a sync task keeps running, but its result is discarded.
    - `transactional`: True to run in the database transaction that records its result, see `TaskContext.conn`.
    - `partition_by`: the name of an argument, or a path into it ("order.customer"): limits per key hold for each of its
      values, and workers take turns between them. `weight`: how many places of a limit a job takes, by default 1.
    - `cpu`: True to run in a process of the worker's pool, for work that would hold Python's global lock. It cannot be
      transactional.
    - `retain`: how long ended executions are kept, see `Retain`; by default as the app sets it.
    - `expires_in`: a timedelta from when a job is due; unless a worker has started it by then, it is cancelled with the
      reason "expired".
    - `on_success`, `on_failure`, `on_cancel`: tasks that are enqueued when a job ends, see `Ended`.
    - `tags`, `metadata`: a list of strings and a dict of JSON values, stored with each job.
    """

    queue: str
    retry: Retry | None
    unique: UniqueTask | None
    priority: int
    max_runtime: timedelta | None
    tags: Sequence[str]
    metadata: Mapping[str, Any] | None
    transactional: bool
    partition_by: str | None
    weight: int
    cpu: bool
    retain: Retain | None
    expires_in: timedelta | None
    on_success: DefinedTask | None
    on_failure: DefinedTask | None
    on_cancel: DefinedTask | None


def read_task_options(who: str, given: Mapping[str, Any], parameters: Parameters | None) -> dict[str, Any]:
    """Return the options as fields of a `TaskDefinition`. Raises `DefinitionError` for invalid and unknown ones.

    `parameters` is None where the function's are invalid: then what depends on them is not checked.
    """
    problems = Problems()
    for option in given:
        try:
            check_options("option", [option], TaskOptions)
        except UnknownOption as error:
            problems.add([f"{who}: {error}. {error.hint}"])
    rule = problems.check
    options = {
        "queue": rule("default", read_queue, who, "queue", given.get("queue", "default")),
        "retry": rule(None, _retry, who, given.get("retry")) or Retry(),
        "unique": rule(None, _unique, who, given.get("unique"), parameters),
        "priority": rule(0, read_priority, who, given.get("priority", 0)),
        "expires_in": rule(None, _expires_in, who, given.get("expires_in")),
        "hooks": rule({}, read_hooks, who, {name: given.get(f"on_{name}") for name in HOOKS.values()}),
        "max_runtime": rule(None, _max_runtime, who, given.get("max_runtime")),
        "tags": rule((), read_tags, who, given.get("tags", ())),
        "metadata": rule({}, read_metadata, who, given.get("metadata")),
        "transactional": rule(False, _flag, who, "transactional", given.get("transactional", False)),
        "cpu": rule(False, _flag, who, "cpu", given.get("cpu", False)),
        "partition_by": rule((), _partition, who, given.get("partition_by"), parameters),
        "retain": rule(None, read_retain, who, given.get("retain")),
        "weight": rule(1, read_weight, who, given.get("weight", 1)),
    }
    if options["cpu"] and options["transactional"]:
        problems.add([f"{who} is cpu and transactional: {CPU_RULE}"])
    problems.raise_if_any()
    return options


def _unique(who: str, unique: Any, parameters: Parameters | None) -> UniqueTask | None:
    if unique is None:
        return None
    if not isinstance(unique, UniqueTask):
        raise DefinitionError(f'{who}: unique is {unique!r}: write unique=UniqueTask(["order_id"]), or UniqueTask()')
    refuse_defect(who, unique)
    if parameters is None:
        return unique
    names = {"all": parameters.names, "none": ()}[unique.args] if isinstance(unique.args, str) else unique.args
    for name in names:
        if name not in parameters.names:
            known = ", ".join(parameters.names) or "none"
            raise DefinitionError(f"{who}: unique names the argument {name!r}, and its arguments are: {known}")
        if name in parameters.secret_names:
            raise DefinitionError(
                f"{who}: unique compares the argument {name!r}, which has a secret, and its hash would be stored in "
                "plain: name the other arguments, as in unique=UniqueTask([…])"
            )
    return unique


def _partition(who: str, given: Any, parameters: Parameters | None) -> tuple[str, ...]:
    path = read_partition(who, given)
    if parameters is not None:
        check_partition(who, path, parameters.fields.kind, parameters.fields.secrets)
    return path


def _max_runtime(who: str, limit: Any) -> timedelta | None:
    if limit is not None and not (is_duration(limit) and limit):
        raise DefinitionError(f"{who}: max_runtime is {limit!r}: write a timedelta greater than zero")
    return limit if limit is None else timedelta(0) + limit


def _retry(who: str, given: Any) -> Retry | None:
    policy = read_retry(who, given)
    if policy is not None and policy.on_exhausted not in ("fail", "pause"):
        raise DefinitionError(
            f"{who}: its retry has on_exhausted={policy.on_exhausted!r}, which is for steps: a task has no "
            'transitions; give it "fail" or "pause", and on_failure=, a task for that case'
        )
    return policy


def _expires_in(who: str, given: Any) -> timedelta | None:
    if given is not None and not (is_duration(given) and given):
        raise DefinitionError(f"{who}: expires_in is {given!r}: write a timedelta of more than zero, up to 100 years")
    return None if given is None else plain(given)


def _flag(who: str, option: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise DefinitionError(f"{who}: {option} is {given!r}: write True or False")
    return given
