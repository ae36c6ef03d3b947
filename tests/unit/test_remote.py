"""The result of a step survives the way to another process and back."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from pgflow import Async, Context, Error, Ok, Snooze, step
from pgflow.core.engine.attempt import AttemptError
from pgflow.core.engine.remote import pack_result, unpack_result
from pgflow.core.values.absent import ABSENT
from pgflow.errors import InvalidPayload, UnencryptedSecret

LIMIT = 1000


class Card(BaseModel):
    number: SecretStr


@step(output=Card)
def charge(ctx: Context[Any]) -> Any: ...


@step
def only(ctx: Context[Any]) -> Any: ...


@pytest.mark.parametrize(
    "result",
    [
        Ok("done"),
        Ok("done", None),
        Ok("done", {"a": [1, 2.5, "ü"]}, metadata={"bank": "b-1"}),
        Error("declined", retry=False),
        Snooze(timedelta(seconds=1.5)),
        Async(),
        AttemptError("it failed", "ValueError", False, {"trace": "…"}),
    ],
)
def test_a_result_comes_back_equal(result: Any) -> None:
    packed = json.loads(json.dumps(pack_result(only, result, limit=LIMIT, reveal=False)))
    assert unpack_result(only, packed) == result


def test_an_output_that_was_left_out_stays_left_out() -> None:
    back = unpack_result(only, pack_result(only, Ok("done"), limit=LIMIT, reveal=False))
    assert isinstance(back, Ok)
    assert back.output is ABSENT


def test_a_secret_crosses_only_where_it_will_be_encrypted() -> None:
    result = Ok("done", Card(number=SecretStr("4711")))
    with pytest.raises(UnencryptedSecret):
        pack_result(charge, result, limit=LIMIT, reveal=False)
    packed = pack_result(charge, result, limit=LIMIT, reveal=True)
    assert packed["output"] == '{"number":"4711"}'
    assert unpack_result(charge, packed) == result


def test_a_value_that_cannot_be_stored_is_refused_where_it_was_made() -> None:
    for output, said in ((object(), "cannot be stored as JSON"), ("x" * LIMIT, "more than the 1,000 allowed")):
        with pytest.raises(InvalidPayload, match=said):
            pack_result(only, Ok("done", output), limit=LIMIT, reveal=False)
    with pytest.raises(InvalidPayload, match="declares the output Card"):
        pack_result(charge, Ok("done", {"name": 1}), limit=LIMIT, reveal=True)


def test_another_value_is_an_error_of_the_step() -> None:
    back = unpack_result(only, pack_result(only, 7, limit=LIMIT, reveal=False))
    assert isinstance(back, AttemptError)
    assert back.reason == "step only returned int; a step returns Ok, Async, Error or Snooze"


@pytest.mark.parametrize("packed", [{}, {"type": "Ok"}, {"type": "os.system", "event": "x"}])
def test_something_else_is_not_turned_into_a_result(packed: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="not a result"):
        unpack_result(only, packed)
