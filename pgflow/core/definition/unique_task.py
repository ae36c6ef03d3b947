"""Uniqueness of a task's executions: by what, for how long, and what happens to an enqueue that repeats one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any, Literal, TypeAlias, get_args

from pgflow.core.definition.rules.problems import collect_or_raise
from pgflow.core.values.duration import is_duration
from pgflow.errors import DefinitionError

__all__ = ["OnConflict", "Replaceable", "State", "UniqueKey", "UniqueTask", "unique_key"]

OnConflict: TypeAlias = Literal["existing", "skip", "raise", "replace"]
Replaceable: TypeAlias = Literal["args", "run_at", "priority"]
State: TypeAlias = Literal["active", "completed"]


@dataclass(frozen=True, slots=True)
class UniqueTask:
    """Which executions of a task count as the same, and what an enqueue does while there is one.

    - `args`: the arguments that are compared: "all" (default), a list of names, or "none": one execution of the task.
    - `by_queue`: whether executions in different queues differ.
    - `states`: "active" (pending, running, waiting for the next attempt), and with a `period` also "completed".
    - `period`: how long after its end a completed execution still counts; a period alone implies both states.
    - `on_conflict`: what an enqueue does that repeats one:
      "existing" (default) returns that one; "skip" returns a handle without an id; "raise" raises `AlreadyEnqueued`;
      "replace" replaces the fields in `replace` ("args", "run_at", "priority") of one that has not started, and
      returns it. One that runs or has completed is returned unchanged.

    With `replace` of "args" and "run_at" and a delay, an enqueue *debounces*: the task runs once, that long after the
    last call, with its arguments. Raises `DefinitionError` for values that contradict each other.

        @task(unique=UniqueTask(["order_id"], period=timedelta(hours=1)))
        @task(unique=UniqueTask(["user_id"], on_conflict="replace", replace=["args", "run_at"]))
    """

    args: Literal["all", "none"] | Sequence[str] = "all"
    by_queue: bool = False
    period: timedelta | None = None
    states: Sequence[State] | None = None
    on_conflict: OnConflict = "existing"
    replace: Sequence[Replaceable] = ()

    def __post_init__(self) -> None:
        try:
            self._check()
        except DefinitionError as error:
            collect_or_raise(self, error)
            return
        if not isinstance(self.args, str):
            object.__setattr__(self, "args", tuple(self.args))
        states = ("active",) if self.period is None else ("active", "completed")
        object.__setattr__(self, "states", states)
        object.__setattr__(self, "replace", tuple(dict.fromkeys(self.replace)))

    def selected(self, args: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the arguments that are compared; None for "none"."""
        match self.args:
            case "all":
                return dict(args)
            case "none":
                return None
            case names:
                return {name: args[name] for name in names if name in args}

    def spec(self) -> dict[str, Any]:
        """Return it as JSON, for the SQL API: `args` is null for "all", an empty list for "none"; `period` in seconds.

        UniqueTask(["order_id"]).spec()["args"]    # ["order_id"]
        """
        names = {"all": None, "none": []}[self.args] if isinstance(self.args, str) else list(self.args)
        return {
            "args": names,
            "queue": self.by_queue,
            "period": None if self.period is None else self.period.total_seconds(),
            "on_conflict": self.on_conflict,
            "replace": list(self.replace),
        }

    def _check(self) -> None:
        if isinstance(self.args, str):
            if self.args not in ("all", "none"):
                raise _refusal("args", self.args, 'give "all", "none" or a list of names, as in args=["order_id"]')
        elif not isinstance(self.args, Sequence) or not all(isinstance(name, str) for name in self.args):
            raise _refusal("args", self.args, 'give "all", "none" or a list of names, as in args=["order_id"]')
        elif not self.args:
            raise _refusal("args", self.args, 'name at least one, or write args="none" for one execution of the task')
        if not isinstance(self.by_queue, bool):
            raise _refusal("by_queue", self.by_queue, "write True or False")
        if self.period is not None and not (is_duration(self.period) and self.period):
            raise _refusal("period", self.period, "give a timedelta greater than zero, of 100 years at most")
        self._check_states()
        if self.on_conflict not in get_args(OnConflict):
            raise _refusal("on_conflict", self.on_conflict, f"use one of {_names(OnConflict)}")
        is_list = isinstance(self.replace, Sequence) and not isinstance(self.replace, str)
        if not is_list or any(name not in get_args(Replaceable) for name in self.replace):
            raise _refusal("replace", self.replace, f"give a list of {_names(Replaceable)}")
        if self.replace and self.on_conflict != "replace":
            raise _refusal("replace", self.replace, 'fields are replaced with on_conflict="replace" only')
        if self.on_conflict == "replace" and not self.replace:
            raise _refusal("on_conflict", "replace", f"name the fields, as in replace=[{_names(Replaceable)}]")

    def _check_states(self) -> None:
        states = self.states
        if states is None:
            return
        is_list = isinstance(states, Sequence) and not isinstance(states, str)
        if not is_list or "active" not in states or any(state not in get_args(State) for state in states):
            raise _refusal("states", states, 'give ["active"], or ["active", "completed"] with a period')
        if "completed" in states and self.period is None:
            raise _refusal("states", states, "give the period in which a completed execution counts, as in period=…")
        if "completed" not in states and self.period is not None:
            raise _refusal("period", self.period, 'only completed executions have one: add "completed" to states')


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """The uniqueness of one enqueue: the key of each item, by position, and what to do where it is taken.

    A key is taken by an active job, and with a `period` (seconds) also by one that completed less than that ago.
    `on_conflict` and `replace` are those of `UniqueTask`. With "raise" nothing is enqueued, and the backend raises
    `AlreadyEnqueued`. Of items with the same key the first is enqueued, and the others meet it.
    """

    keys: tuple[str, ...]
    period: float | None = None
    on_conflict: OnConflict = "existing"
    replace: tuple[Replaceable, ...] = ()


def unique_key(task: str, unique: UniqueTask, args: Mapping[str, Any], queue: str) -> str:
    """Return the key of one execution: the SHA-256 of its task, its queue if that counts, and the compared arguments.

    `args` are JSON values. SQL computes the same: `encode(sha256(convert_to(jsonb_build_array(task, queue or null,
    args or null)::text, 'UTF8')), 'hex')`, with the object of the compared arguments as `args`.

        unique_key("send_receipt", UniqueTask(["order_id"]), {"order_id": 7, "copy": True}, "mail")
    """
    parts = [task, queue if unique.by_queue else None, unique.selected(args)]
    return sha256(_jsonb_text(parts).encode()).hexdigest()


def _jsonb_text(value: Any) -> str:
    """Return JSON as PostgreSQL writes a jsonb: keys by length, then by bytes; numbers without exponents."""
    match value:
        case dict():
            keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
            return "{" + ", ".join(f"{_jsonb_text(key)}: {_jsonb_text(value[key])}" for key in keys) + "}"
        case list():
            return "[" + ", ".join(map(_jsonb_text, value)) + "]"
        case float():
            return format(Decimal(repr(value)), "f")
    return json.dumps(value, ensure_ascii=False)


def _names(kind: Any) -> str:
    return ", ".join(f'"{name}"' for name in get_args(kind))


def _refusal(option: str, value: object, rule: str) -> DefinitionError:
    return DefinitionError(f"UniqueTask({option}={value!r}): {rule}")
