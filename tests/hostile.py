"""Exceptions whose own code raises, lies or never ends, and other hostile objects, by name.

Each is created on demand: `HOSTILE["str exits"]()` returns an exception, which the caller raises.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

__all__ = ["CONTROL_FLOW", "HOSTILE", "HostileRepr", "HostileText", "returned"]

T = TypeVar("T")

CONTROL_FLOW: tuple[type[BaseException], ...] = (
    SystemExit,
    KeyboardInterrupt,
    GeneratorExit,
    asyncio.CancelledError,
    StopIteration,
    StopAsyncIteration,
    RecursionError,
    MemoryError,
)


def returned(call: Callable[[], T], what: str) -> T:
    """Return the result of `call`; fail the test if it raises anything, without a frame for pytest to format.

    pytest cannot format these exceptions, nor the arguments of a function that was called with one.
    """
    try:
        return call()
    except BaseException as error:
        kind = type.__dict__["__name__"].__get__(type(error))
    raise AssertionError(f"{what}: {str.__str__(kind)} was raised")


class Plain(BaseException):
    """Neither an `Exception` nor a built-in class."""


class HostileText(str):
    """A string whose methods raise."""

    __slots__ = ()

    def _refuse(self, *args: object) -> NoReturn:
        raise SystemExit("text")

    __getitem__ = __len__ = __str__ = __repr__ = __format__ = __iter__ = __contains__ = __add__ = _refuse
    replace = encode = translate = strip = splitlines = _refuse  # type: ignore[assignment]


class HostileRepr:
    """An object that cannot be formatted, compared, hashed or iterated."""

    def _refuse(self, *args: object) -> NoReturn:
        raise SystemExit("object")

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __iter__ = __len__ = _refuse


def _exception(**members: Any) -> BaseException:
    kind = type("Hostile", (Exception,), members)
    error: BaseException = kind("why")
    return error


def _raiser(raised: type[BaseException]) -> Callable[..., NoReturn]:
    def refuse(*args: object) -> NoReturn:
        raise raised("from within")

    return refuse


def _with_notes(notes: object) -> BaseException:
    error = Exception("noted")
    error.__notes__ = notes  # type: ignore[assignment]
    return error


class _Stuck(list[str]):
    def __iter__(self) -> Iterator[str]:
        raise SystemExit("notes")


def _chained(length: int, link: str) -> BaseException:
    error: BaseException = Exception("0")
    for number in range(1, length):
        outer = Exception(str(number))
        setattr(outer, link, error)
        error = outer
    return error


def _circle(link: str) -> BaseException:
    one, other = Exception("one"), Exception("other")
    setattr(one, link, other)
    setattr(other, link, one)
    return one


def _deep_group(depth: int) -> BaseException:
    error: Exception = ValueError("the innermost")
    for level in range(depth):
        error = ExceptionGroup(f"level {level}", [error])
    return error


def _own_group() -> BaseException:
    class Group(ExceptionGroup[Exception]):
        @property
        def exceptions(self) -> NoReturn:
            raise SystemExit("members")

    return Group("group", [ValueError("a member")])


def _deep_traceback(frames: int) -> BaseException:
    try:
        raise Exception("deep")
    except Exception as error:
        trace = error.__traceback__
        assert trace is not None
        for _ in range(frames):
            trace = types.TracebackType(trace, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
        return error.with_traceback(trace)


def _with_metaclass(**members: Any) -> BaseException:
    meta = type("Meta", (type,), members)
    kind = meta("Hostile", (Exception,), {})
    error: BaseException = kind("why")
    return error


def _odd_name(name: str, module: object) -> BaseException:
    kind: Any = type("Odd", (Exception,), {"__module__": module})
    kind.__name__ = name
    error: BaseException = kind("why")
    return error


def _attribute_error() -> BaseException:
    holder: Any = type("Holder", (), {"__dir__": _raiser(SystemExit)})()
    try:
        holder.colour  # noqa: B018 -- asked for the error
    except AttributeError as error:
        return error
    raise AssertionError


def _invalid() -> BaseException:
    class Model(BaseModel):
        count: int

    try:
        Model.model_validate({"count": HostileRepr()})
    except ValidationError as error:
        return error
    raise AssertionError


HOSTILE: dict[str, Callable[[], BaseException]] = {
    **{f"a {kind.__name__}": kind for kind in (*CONTROL_FLOW, Plain)},
    **{f"str raises {kind.__name__}": (lambda kind=kind: _exception(__str__=_raiser(kind))) for kind in CONTROL_FLOW},  # type: ignore[misc]
    "str and repr raise": lambda: _exception(__str__=_raiser(ValueError), __repr__=_raiser(ValueError)),
    "str returns a number": lambda: _exception(__str__=lambda self: 7),
    "str returns hostile text": lambda: _exception(__str__=lambda self: HostileText("x")),
    "an argument without repr": lambda: Exception(HostileRepr(), HostileRepr()),
    "getattr raises": lambda: _exception(__getattr__=_raiser(KeyError)),
    "getattribute raises": lambda: _exception(__getattribute__=_raiser(KeyError)),
    "getattribute exits": lambda: _exception(__getattribute__=_raiser(SystemExit)),
    "notes are a number": lambda: _with_notes(7),
    "notes are not text": lambda: _with_notes([HostileRepr(), HostileText("x"), 7, "a note"]),
    "notes raise": lambda: _exception(__notes__=property(_raiser(KeyError))),
    "notes exit": lambda: _exception(__notes__=property(_raiser(SystemExit))),
    "notes cannot be read": lambda: _with_notes(_Stuck(["x"])),
    "notes without end": lambda: _with_notes(["x" * 1000] * 100_000),
    "a long chain of causes": lambda: _chained(20_000, "__cause__"),
    "a long chain of contexts": lambda: _chained(20_000, "__context__"),
    "a circle of causes": lambda: _circle("__cause__"),
    "a circle of contexts": lambda: _circle("__context__"),
    "a cause that raises": lambda: _exception(__cause__=property(_raiser(SystemExit))),
    "a context that raises": lambda: _exception(__context__=property(_raiser(SystemExit))),
    "a traceback that raises": lambda: _exception(__traceback__=property(_raiser(SystemExit))),
    "a hostile cause": lambda: _caused(_exception(__str__=_raiser(SystemExit), __getattr__=_raiser(KeyError))),
    "a traceback of many frames": lambda: _deep_traceback(100_000),
    "a deep group": lambda: _deep_group(5_000),
    "a wide group": lambda: ExceptionGroup("wide", [ValueError("x" * 100)] * 200_000),
    "a group of control flow": lambda: BaseExceptionGroup("exits", [SystemExit(1), KeyboardInterrupt()]),
    "a group without members": _own_group,
    "a huge message": lambda: Exception("x" * 20_000_000),
    "a message that no text holds": lambda: Exception("a\0b\ud800c\x1b[2J"),
    "a class that lies": lambda: _exception(__class__=property(lambda self: int)),
    "a class that raises": lambda: _exception(__class__=property(_raiser(SystemExit))),
    "a name that raises": lambda: _with_metaclass(__name__=property(_raiser(SystemExit))),
    "a module that raises": lambda: _with_metaclass(__module__=property(_raiser(SystemExit))),
    "a metaclass that raises": lambda: _with_metaclass(__getattribute__=_raiser(SystemExit)),
    "a metaclass that checks": lambda: _with_metaclass(__instancecheck__=_raiser(SystemExit)),
    "a hostile name": lambda: _odd_name(HostileText("Odd\x1b" + "x" * 1000), HostileText("m")),
    "a module that is a number": lambda: _odd_name("Odd", 7),
    "no equality, hash or truth": lambda: _exception(
        __eq__=_raiser(SystemExit), __hash__=_raiser(SystemExit), __bool__=_raiser(SystemExit)
    ),
    "a suggestion that raises": _attribute_error,
    "an input without repr": _invalid,
}


def _caused(cause: BaseException) -> BaseException:
    error = Exception("outer")
    error.__cause__ = cause
    return error
