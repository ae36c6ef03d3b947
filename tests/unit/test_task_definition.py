"""The @task decorator: what it accepts, what it refuses, and what it stores; uniqueness and the registry."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from weakref import WeakSet

import pytest
from pydantic import BaseModel, Field, SecretStr

from pgflow import (
    Context,
    Done,
    Error,
    Ok,
    Pgflow,
    Retry,
    Snooze,
    Task,
    TaskContext,
    Unique,
    UniqueTask,
    Workflow,
    step,
    task,
)
from pgflow.client import apps
from pgflow.core.definition.registry import Registry
from pgflow.core.definition.rules.problems import collecting
from pgflow.core.definition.unique_task import unique_key
from pgflow.errors import (
    DefinitionError,
    InvalidInput,
    InvalidPayload,
    InvalidValue,
    NotBound,
    UnencryptedSecret,
    UnknownOption,
    UnknownTask,
)
from pgflow.local import Local

if TYPE_CHECKING:
    from decimal import Decimal

HOUR = timedelta(hours=1)


class Order(BaseModel):
    number: str


@dataclass
class Parcel:
    weight: float
    due: date


@task(name="mail.send", queue="mail", tags=["a", "a"])
def send(order_id: int, /, order: Order, parcel: Parcel | None = None, *, copy: bool = False, to: str = "x") -> str:
    """Send it."""
    return f"{order_id} {order.number} {copy} {to}"


def plain(number: int) -> int:
    return number


class Opaque:
    """A type that pydantic cannot validate."""


# -- the decorated function


def test_a_task_keeps_the_name_docstring_and_signature_of_its_function() -> None:
    assert send(1, Order(number="n"), copy=True) == "1 n True x"
    assert (send.__name__, send.__doc__, send.name) == ("send", "Send it.", "mail.send")  # type: ignore[attr-defined]
    assert list(inspect.signature(send).parameters) == ["order_id", "order", "parcel", "copy", "to"]
    assert pickle.loads(pickle.dumps(send)) is send  # noqa: S301 -- written here
    assert repr(send) == "<task mail.send>"
    assert (send.definition.queue, send.definition.tags, send.definition.is_async) == ("mail", ("a",), False)


def test_a_task_gets_the_context_where_its_parameter_is() -> None:
    @task
    def first(ctx: TaskContext, /, number: int) -> tuple[str, int]:
        return ctx.task, number

    @task
    def between(one: int, ctx: TaskContext, two: int = 2) -> tuple[str, int, int]:
        return ctx.task, one, two

    @task
    async def named(one: int, *, ctx: TaskContext | None = None) -> tuple[str, int]:
        assert ctx is not None
        return ctx.task, one

    given = TaskContext(id=3, task="given")
    calls: Any = first, between, named
    one, two, three = calls
    assert (one(7), one(given, 7)) == (("first", 7), ("given", 7))
    assert (two(1), two(1, two=3), two(1, 3)) == (("between", 1, 2), ("between", 1, 3), ("between", 1, 3))
    assert two(1, given) == ("given", 1, 2)
    assert (asyncio.run(three(1)), asyncio.run(three(1, ctx=given))) == (("named", 1), ("given", 1))
    assert [each.definition.arguments.names for each in calls] == [("number",), ("one", "two"), ("one",)]
    assert given.idempotency_key == "given:3"


def test_arguments_are_a_json_object_by_name_in_both_directions() -> None:
    arguments = send.definition.arguments
    text = arguments.write((7, {"number": "n"}), {"parcel": Parcel(1.5, date(2030, 1, 1))})
    assert json.loads(text) == {
        "order_id": 7,
        "order": {"number": "n"},
        "parcel": {"weight": 1.5, "due": "2030-01-01"},
        "copy": False,
        "to": "x",
    }
    back = arguments.read(text)
    assert back == {
        "order_id": 7,
        "order": Order(number="n"),
        "parcel": Parcel(1.5, date(2030, 1, 1)),
        "copy": False,
        "to": "x",
    }
    assert send.definition.function(**back) == "7 n False x"
    assert arguments.read('{"order_id": 7, "order": {"number": "n"}}') == {"order_id": 7, "order": Order(number="n")}
    assert arguments.write_named({"order_id": 7, "order": Order(number="n")}) == arguments.write(
        (7, Order(number="n")), {}
    )


@pytest.mark.parametrize("name", ["copy", "json", "schema", "model_config", "_hidden", "self_", "class_"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def made({name}: int = 1): return {name}", namespace)  # noqa: S102 -- of names above
    arguments = task(namespace["made"]).definition.arguments
    assert arguments.read(arguments.write((), {name: 3})) == {name: 3}


@pytest.mark.parametrize(
    ("args", "kwargs", "error", "message"),
    [
        ((), {}, InvalidInput, "missing a required argument: 'order_id'"),
        ((1, Order(number="n"), None, True), {}, InvalidInput, "too many positional arguments"),
        ((1, Order(number="n")), {"cop": 1}, InvalidInput, "unexpected keyword argument 'cop'"),
        ((1, Order(number="n")), {"order_id": 2}, InvalidInput, "order_id"),
        (("x", Order(number="n")), {}, InvalidInput, r"mail\.send: the args do not fit \(order_id, /, order.*order_id"),
        ((1, {"number": 3}), {}, InvalidInput, r"order\.number: Input should be a valid string"),
        ((1, Order(number="n")), {"to": "x" * 1_100_000}, InvalidPayload, "args is .* more than"),
        ((1, Order(number="\0")), {}, InvalidPayload, "NUL"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    args: tuple[Any, ...], kwargs: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        send.definition.arguments.write(args, kwargs)


def test_values_that_would_come_back_changed_are_refused() -> None:
    @task
    def untyped(value: Any) -> None: ...

    assert untyped.definition.arguments.write(([1, {"a": None}],), {}) == '{"value":[1,{"a":null}]}'
    with pytest.raises(InvalidInput, match=r"args\.value is a date, and would come back as a str"):
        untyped.definition.arguments.write((date(2030, 1, 1),), {})
    with pytest.raises((InvalidInput, InvalidPayload), match="Opaque"):
        untyped.definition.arguments.write((Opaque(),), {})


def test_annotations_as_text_may_name_classes_of_the_scope() -> None:
    class Local(BaseModel):
        number: Annotated[int, Field(gt=0)]

    @task
    def scoped(value: Local) -> Local:
        return value

    with pytest.raises(InvalidInput, match=r"value\.number: Input should be greater than 0"):
        scoped.definition.arguments.write(({"number": 0},), {})
    assert scoped.definition.output.read('{"number": 3}') == Local(number=3)


def test_the_output_has_the_return_type_or_the_given_one() -> None:
    @task
    async def returns() -> Order | Error | Snooze:
        return Order(number="n")

    @task(output=Order)
    def declared() -> dict[str, str]:
        return {"number": "n"}

    @task(output=None)
    def discarded() -> Opaque:
        return Opaque()

    assert returns.definition.output.write(Order(number="n")) == '{"number":"n"}'
    with pytest.raises(InvalidInput, match="output does not fit"):
        returns.definition.output.write(3)
    assert declared.definition.output.read(declared.definition.output.write({"number": "n"})) == Order(number="n")
    assert discarded.definition.output.write(Opaque()) == "null"
    assert task(plain).definition.output.read("3") == 3


# -- refused definitions


class Holder:
    """Functions that cannot be tasks."""

    def method(self, number: int) -> None: ...

    @classmethod
    def of_class(cls) -> None: ...


def generator() -> Iterator[int]:
    yield 1


def variable(*numbers: int) -> None: ...


def keywords(**numbers: int) -> None: ...


def opaque(value: Opaque) -> None: ...


def returns_opaque() -> Opaque:
    return Opaque()


def only_checked(value: Decimal) -> None: ...


def two_contexts(one: TaskContext, two: TaskContext) -> None: ...


def bad_default(number: int = "") -> None: ...  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (Holder.method, "method is a method: define the task outside of a class"),
        (Holder.__dict__["of_class"], "of_class is a class method"),
        (generator, "generator is a generator"),
        (variable, r"variable: \*numbers cannot be stored by parameter name"),
        (keywords, r"keywords: \*\*numbers cannot be stored by parameter name"),
        (opaque, r"opaque: .*Opaque.* cannot be the args\.value"),
        (returns_opaque, "returns_opaque: .*Opaque.* cannot be the output"),
        (only_checked, "only_checked: its annotations cannot be resolved: name 'Decimal' is not defined"),
        (two_contexts, "has the context twice, as one and two"),
        (bad_default, "the default of number cannot be stored"),
        (lambda: None, "has no usable name: give one, as in @task"),
        (functools.partial(plain, 1), "has no usable name"),
        (3, "has no usable name"),
        (Holder, "is for functions, and .*Holder.* is not one"),
        (len, "for functions written with def, and len is a builtin"),
    ],
)
def test_a_function_that_cannot_be_a_task_is_refused(function: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        task(function)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a b"}, "the name 'a b' is refused"),
        ({"queue": "a b"}, "plain: queue is 'a b'"),
        ({"priority": 1.5}, "plain: priority must be a whole number"),
        ({"retry": 3}, "plain: retry is 3"),
        ({"unique": True}, r"plain: unique is True: write unique=UniqueTask"),
        ({"unique": Unique("order")}, r"plain: unique is Unique.*: write unique=UniqueTask"),
        ({"unique": UniqueTask(["numbr"])}, "unique names the argument 'numbr', and its arguments are: number"),
        ({"max_runtime": 3}, "plain: max_runtime is 3"),
        ({"max_runtime": timedelta(0)}, "plain: max_runtime is"),
        ({"tags": "x"}, "plain: tags must be a list"),
        ({"metadata": 3}, "plain: metadata must be a dict"),
        ({"transactional": 1}, "plain: transactional is 1"),
        ({"quue": "a"}, "there is no option 'quue'. Did you mean 'queue'"),
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        task(**options)(plain)


def test_one_error_has_all_problems_and_collecting_raises_none() -> None:
    with pytest.raises(DefinitionError) as raised:
        task(queue=3, retry=3)(variable)  # type: ignore[call-overload]
    assert len(raised.value.problems) == 3
    with collecting() as collected:
        made = task(queue=3)(plain)  # type: ignore[call-overload]
        Registry(tasks=[made])
    assert (made.is_valid, len(collected.problems)) == (False, 1)


# -- uniqueness


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"args": []}, "name at least one"),
        ({"args": "number"}, 'give "all", "none" or a list of names'),
        ({"args": [3]}, 'give "all", "none" or a list of names'),
        ({"by_queue": "mail"}, "write True or False"),
        ({"period": 3}, "give a timedelta greater than zero"),
        ({"period": timedelta(0)}, "give a timedelta greater than zero"),
        ({"states": ["completed"], "period": HOUR}, r'give \["active"\]'),
        ({"states": ["active", "failed"], "period": HOUR}, r'give \["active"\]'),
        ({"states": ["active", "completed"]}, "give the period"),
        ({"states": ["active"], "period": HOUR}, 'add "completed" to states'),
        ({"on_conflict": "ignore"}, 'use one of "existing", "skip", "raise", "replace"'),
        ({"on_conflict": "replace"}, "name the fields"),
        ({"replace": ["args"]}, 'with on_conflict="replace" only'),
        ({"replace": ["queue"], "on_conflict": "replace"}, 'give a list of "args", "run_at", "priority"'),
    ],
)
def test_an_invalid_uniqueness_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        UniqueTask(**options)


def test_the_unique_key_depends_on_what_is_compared() -> None:
    def key(unique: UniqueTask, queue: str = "mail", **args: Any) -> str:
        return unique_key("send", unique, args, queue)

    by_all, by_one, by_none = UniqueTask(), UniqueTask(["a"]), UniqueTask("none")
    assert key(by_all, a=1, b=2) == key(by_all, b=2, a=1) != key(by_all, a=1, b=3)
    assert key(by_one, a=1, b=2) == key(by_one, a=1, b=3) != key(by_one, a=2, b=2)
    assert key(by_none, a=1) == key(by_none, a=2)
    assert key(by_all, a=1) == key(by_all, queue="other", a=1)
    assert key(UniqueTask(by_queue=True), a=1) != key(UniqueTask(by_queue=True), queue="other", a=1)
    assert unique_key("send", by_all, {}, "q") != unique_key("other", by_all, {}, "q")
    assert UniqueTask(period=HOUR).spec() == {
        "args": None,
        "queue": False,
        "period": 3600.0,
        "on_conflict": "existing",
        "replace": [],
    }


# -- secrets, the registry, and the app of a task


def with_secret(card: SecretStr, order_id: int) -> None: ...


def test_a_secret_needs_a_codec_and_cannot_be_compared() -> None:
    secret = task(with_secret)
    assert secret.definition.secrets == ("args.card",)
    with pytest.raises(DefinitionError, match=r"with_secret: args\.card is a secret and would be stored in plain"):
        Registry(tasks=[secret])
    with pytest.raises(UnencryptedSecret):
        secret.definition.arguments.write((SecretStr("4711"), 7), {})
    assert "4711" in secret.definition.arguments.write((SecretStr("4711"), 7), {}, reveal=True)
    for unique in (UniqueTask(), UniqueTask(["card"])):
        with pytest.raises(DefinitionError, match="unique compares the argument 'card', which has a secret"):
            task(unique=unique)(with_secret)
    assert task(unique=UniqueTask(["order_id"]))(with_secret).is_valid


@step
def only(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done")


class Flow(Workflow[dict[str, Any]], unique=Unique("value"), name="plain"):
    initial = only
    transitions = {only: {"done": Done}}


@pytest.mark.parametrize(
    ("workflows", "tasks", "message"),
    [
        ([], [task(plain), task(plain)], r"two tasks are named plain: .*test_task_definition\.plain and .*\.plain"),
        ([Flow], [task(plain)], r"a workflow and a task are named plain: .*\.Flow and .*test_task_definition\.plain"),
        ([], [plain], "function plain .* is not a task"),
        ([], [Flow], "plain is a workflow"),
        ([task(plain)], [], "plain is a task"),
    ],
)
def test_a_name_belongs_to_one_workflow_or_task(workflows: Any, tasks: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as raised:
        Registry(workflows, tasks)
    assert raised.value.hint is not None


def test_an_adopted_task_is_checked_and_kept() -> None:
    one, other = task(plain), task(plain)
    with Local(workflows=[], tasks=[one]) as app:
        app.adopt(one)
        with pytest.raises(DefinitionError, match="two tasks are named plain"):
            app.adopt(other)
        with pytest.raises(DefinitionError, match="a workflow and a task are named plain"):
            app.adopt(Flow)
        assert (app.tasks, app.task("plain")) == ((one,), one)
        with pytest.raises(UnknownTask, match="no task named 'plian'") as raised:
            app.enqueue("plian")
        assert raised.value.hint == "It has: plain."
        with pytest.raises(UnknownTask):
            app.enqueue(task(name="unlisted")(plain), (1,))


def test_a_task_goes_to_the_last_open_app_that_has_it_or_to_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "open_apps", WeakSet())  # other tests have left some open
    made: Task[..., int, int] = task(plain)
    with pytest.raises(NotBound, match="plain belongs to no app, and none is open") as raised:
        made.enqueue(1)
    assert raised.value.hint == "Make one first: Pgflow(dsn, tasks=[plain])."
    with Local() as only_one:
        assert made.bound() is only_one
        assert only_one.tasks == (made,)
    made = task(plain)
    with Local(tasks=[made]) as first:
        with Local(tasks=[made]) as second:
            assert made.bound() is second
        assert made.bound() is first
    made = task(plain)
    with Local(), Local(), pytest.raises(NotBound, match="several are open") as raised:
        made.enqueue(1)
    assert raised.value.hint is not None
    assert "app.enqueue(plain, …)" in raised.value.hint


def test_an_app_shows_its_tasks_and_checks_options_before_it_connects() -> None:
    made = task(retry=Retry(max_attempts=2))(plain)
    app = Pgflow("postgresql://nowhere.invalid/x", tasks=[made])
    assert repr(app) == "Pgflow(name='pgflow', workflows=[], tasks=[plain], schema='pgflow')"
    refused: list[tuple[type[Exception], Callable[[], Any]]] = [
        (UnknownOption, lambda: made.options(dely=HOUR)),  # type: ignore[call-arg]
        (InvalidInput, lambda: app.enqueue(made, {"numbr": 1})),
        (InvalidInput, lambda: app.enqueue(made, [1])),  # type: ignore[arg-type]
        (InvalidValue, lambda: app.job(-1)),
        (UnknownOption, lambda: made.list(statsu="failed")),  # type: ignore[call-arg]
        (InvalidValue, lambda: made.list(status="gone")),
        (InvalidValue, lambda: made.list(limit=0)),
        (InvalidValue, lambda: made.list(args=[1])),  # type: ignore[arg-type]
    ]
    for error, call in refused:
        with pytest.raises(error):
            call()
    app.close()
