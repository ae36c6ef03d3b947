"""A function that cannot be called as a step, route or hook, or is for another input, is refused at definition."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, NewType, Protocol, TypeVar

import pytest
from pydantic import BaseModel

from pgflow import Context, Done, Ok, Retry, Step, Unique, Workflow, route, step
from pgflow.core.engine import attempt
from pgflow.errors import DefinitionError

T = TypeVar("T")


class Order(BaseModel):
    item_count: int = 1


class Express(Order):
    pass


class Parcel(BaseModel):
    weight: int = 1


class HasCount(Protocol):
    item_count: int


Number = NewType("Number", int)


def one(ctx: Any) -> Ok:
    return Ok("done")


def one_with_options(ctx: Any, extra: int = 1, *more: Any, note: str = "") -> Ok:
    return Ok("done")


def any_number(*args: Any) -> Ok:
    return Ok("done")


def positional(ctx: Any, /) -> Ok:
    return Ok("done")


def none() -> Ok:
    return Ok("done")


def two(ctx: Any, order: Any) -> Ok:
    return Ok("done")


def keyword_needed(ctx: Any, *, order: Any) -> Ok:
    return Ok("done")


def keyword_only(*, ctx: Any) -> Ok:
    return Ok("done")


def keywords(**ctx: Any) -> Ok:
    return Ok("done")


def generator(ctx: Any) -> Iterator[Ok]:
    yield Ok("done")


async def async_generator(ctx: Any) -> AsyncIterator[Ok]:
    yield Ok("done")


async def coroutine(ctx: Any) -> Ok:
    return Ok("done")


class Callee:
    def __call__(self, ctx: Any) -> Ok:
        return Ok("done")


class AsyncCallee:
    async def __call__(self, ctx: Any) -> Ok:
        return Ok("done")


class GeneratorCallee:
    def __call__(self, ctx: Any) -> Iterator[Ok]:
        yield Ok("done")


class TwoCallee:
    def __call__(self, ctx: Any, order: Any) -> Ok:
        return Ok("done")


class Shop:
    def method(self, ctx: Any) -> Ok:
        return Ok("done")

    def bare(self) -> Ok:
        return Ok("done")

    @classmethod
    def of_class(cls, ctx: Any) -> Ok:
        return Ok("done")

    @staticmethod
    def static(ctx: Any) -> Ok:
        return Ok("done")

    @staticmethod
    def static_without() -> Ok:
        return Ok("done")


def supplied(function: Callable[..., Any]) -> Callable[[Any], Any]:
    @functools.wraps(function)
    def call(ctx: Any) -> Any:
        return function(ctx, "order")

    return call


GOOD = {
    "one": one,
    "options": one_with_options,
    "any number": any_number,
    "positional": positional,
    "lambda": lambda ctx: Ok("done"),
    "callee": Callee(),
    "async callee": AsyncCallee(),
    "coroutine": coroutine,
    "partial": functools.partial(two, order=1),
    "partial of a coroutine": functools.partial(coroutine),
    "partial of a callee": functools.partial(AsyncCallee()),
    "bound method": Shop().method,
    "bound class method": Shop.of_class,
    "static method": Shop.static,
    "static method object": Shop.__dict__["static"],
    "decorated": supplied(two),
    "builtin without a signature": max,
}
BAD = {
    "none": (none, "it takes no argument"),
    "two": (two, "it needs ctx, order"),
    "keyword needed": (keyword_needed, "it needs ctx, order"),
    "keyword only": (keyword_only, "it needs ctx"),
    "keywords": (keywords, "it takes no argument"),
    "lambda": (lambda: Ok("done"), "it takes no argument"),
    "two in a callee": (TwoCallee(), "it needs ctx, order"),
    "partial": (functools.partial(none), "it takes no argument"),
    "partial with a keyword": (functools.partial(two, ctx=1), "it needs order"),
    "static method": (Shop.__dict__["static_without"], "it takes no argument"),
}
ONLY_BAD_STEPS = {
    "method": (Shop.method, "is a method"),
    "method without more": (Shop.bare, "is a method"),
    "class method": (Shop.__dict__["of_class"], "is a class method"),
    "generator": (generator, "is a generator"),
    "async generator": (async_generator, "is a generator"),
    "generator in a callee": (GeneratorCallee(), "is a generator"),
    "partial of a generator": (functools.partial(generator), "is a generator"),
    "class": (Callee, "is for functions"),
}


def flow_of(made: Step) -> type[Workflow[Any]]:
    class Flow(Workflow[Any], unique=Unique("flow")):
        initial = made
        transitions = {made: {"done": Done}}

    return Flow


class Without:
    def __call__() -> Ok:  # type: ignore[misc]  # the mistake
        return Ok("done")


BAD["callee without self"] = (Without(), "it takes no argument")


@pytest.mark.parametrize("name", GOOD)
def test_a_function_that_can_be_called_with_the_context_is_a_step(name: str) -> None:
    function: Any = GOOD[name]
    made = step(name="work")(function)
    flow_of(made)
    if function is not max:
        result = attempt.call(made, Context(None), Retry())
        assert (asyncio.run(result) if made.is_async else result) == Ok("done")


@pytest.mark.parametrize("name", [*BAD, *ONLY_BAD_STEPS])
def test_a_function_that_cannot_be_called_with_the_context_is_not_a_step(name: str) -> None:
    function, expected = {**ONLY_BAD_STEPS, **BAD}[name]
    with pytest.raises(DefinitionError, match=expected):
        flow_of(step(name="work")(function))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (two, r"two cannot be called: .* with one argument, ctx; write `def two\(ctx\)`"),
        (Shop.method, r"method is a method: define the step outside of a class, `def method\(ctx\)`"),
    ],
)
def test_the_message_about_a_step_names_the_function_and_the_fix(function: Any, expected: str) -> None:
    with pytest.raises(DefinitionError, match=expected):
        flow_of(step(function))


@pytest.mark.parametrize("name", GOOD)
def test_a_route_is_checked_like_a_step(name: str) -> None:
    target = step(name="target")(one)
    function: Any = GOOD[name]
    if "coroutine" in name or "async" in name or "partial of" in name:
        with pytest.raises(DefinitionError, match="a plain function of the context: not async"):
            routed(function, target)
    else:
        routed(function, target)


@pytest.mark.parametrize("name", BAD)
def test_a_route_that_cannot_be_called_with_the_context_is_refused(name: str) -> None:
    function, expected = BAD[name]
    with pytest.raises(
        DefinitionError, match=rf"route\(.*: the function must take one argument, the context: {expected}"
    ):
        routed(function, step(name="target")(one))


@pytest.mark.parametrize("given", [generator, async_generator, GeneratorCallee(), coroutine, Callee])
def test_a_route_that_is_not_a_plain_function_is_refused(given: Any) -> None:
    with pytest.raises(DefinitionError, match="a plain function of the context: not async, a generator"):
        routed(given, step(name="target")(one))


def routed(function: Any, target: Step) -> type[Workflow[Any]]:
    first = step(name="first")(one)

    class Flow(Workflow[Any], unique=Unique("flow")):
        initial = first
        transitions = {first: {"done": route(function, target)}, target: {"done": Done}}

    return Flow


@pytest.mark.parametrize("function", [none, one, generator, coroutine, keyword_needed, 7])
def test_a_hook_that_cannot_be_called_is_refused(function: Any) -> None:
    made = step(name="work")(one)
    with pytest.raises(DefinitionError, match=r"Flow: version_for .*def version_for\(cls, versions, options\)"):

        class Flow(Workflow[Any], unique=Unique("flow")):
            initial = made
            transitions = {made: {"done": Done}}
            version_for = function if function == 7 else classmethod(function)


def with_input(kind: Any, function: Any, *, as_route: bool) -> type[Workflow[Any]]:
    first = step(name="first")(one if as_route else function)
    last = step(name="last")(one)

    class Flow(Workflow[kind], unique=Unique("flow")):
        initial = first
        transitions = {first: {"done": route(function, last) if as_route else last}, last: {"done": Done}}

    return Flow


def annotated(annotation: Any) -> Any:
    def work(ctx: Any) -> Ok:
        return Ok("done")

    work.__annotations__["ctx"] = annotation
    return work


PLACES = pytest.mark.parametrize("as_route", [False, True], ids=["step", "route"])


@PLACES
@pytest.mark.parametrize(
    ("kind", "annotation"),
    [
        (Order, Context[Parcel]),
        (Order, "Context[Parcel]"),
        (Order, Context[Parcel | None]),
        (Order, Annotated[Context[Parcel], "note"]),
        (Order, Context[str]),
        (Order | None, Context[Parcel]),
        (Order, Context[dict[str, Any]]),
        (dict[str, Any], Context[Order]),
        (int, Context[str]),
        (list[Order], Context[Order]),
        (Number, Context[str]),
        (Annotated[Order, "note"], Context[Parcel]),
    ],
    ids=str,
)
def test_a_function_for_another_input_is_refused(as_route: bool, kind: Any, annotation: Any) -> None:
    with pytest.raises(DefinitionError, match=r"is for another workflow: it takes Context\[.*\], and the input is "):
        with_input(kind, annotated(annotation), as_route=as_route)


@PLACES
@pytest.mark.parametrize(
    ("kind", "annotation"),
    [
        (Order, Context[Order]),
        (Order, "Context[Order]"),
        (Order, Context[Express]),
        (Express, Context[Order]),
        (Order, Context[Any]),
        (Order, Context[object]),
        (Order, Context[BaseModel]),
        (Any, Context[Order]),
        (Order, Context[Order | Parcel]),
        (Order | None, Context[Order]),
        (Order, Context[Order | None]),
        (Order, Context[T]),  # type: ignore[valid-type]  # a type variable without a scope
        (Order, Context[HasCount]),
        (Order, "Context[NotDefinedHere]"),
        (Order, "not even code"),
        (Order, Context),
        (Order, Any),
        (Order, HasCount),
        (dict[str, Any], Context[Mapping[str, Any]]),
        (dict[str, Any], Context[dict[str, int]]),
        (list[Order], Context[list[Parcel]]),
        (int, Context[float]),
        (Number, Context[int]),
        (int, Context[Number]),
        (Literal["a"], Context[str]),
        (None, Context[None]),
    ],
    ids=str,
)
def test_a_function_that_may_be_for_the_input_is_accepted(as_route: bool, kind: Any, annotation: Any) -> None:
    with_input(kind, annotated(annotation), as_route=as_route)


def test_a_step_class_for_another_input_is_refused_also_behind_a_decorator() -> None:
    class Weigh(Step):
        events: ClassVar[tuple[str, ...]] = ("done",)

        def execute(self, ctx: Context[Parcel]) -> Ok:
            return Ok("done")

    with pytest.raises(DefinitionError, match=r"Flow: Weigh is for another workflow: it takes Context\[Parcel\]"):

        class Flow(Workflow[Order], unique=Unique("flow")):
            initial = Weigh
            transitions = {Weigh: {"done": Done}}

    with pytest.raises(DefinitionError, match="is for another workflow"):
        with_input(Order, functools.partial(annotated(Context[Parcel])), as_route=False)

    def weigh(ctx: Context[Parcel], order: str) -> Ok:
        return Ok("done")

    with pytest.raises(DefinitionError, match="is for another workflow"):
        with_input(Order, supplied(weigh), as_route=False)
