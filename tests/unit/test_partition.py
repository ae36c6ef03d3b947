"""Partition keys: paths are checked where they are declared, and keys are read from documents."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import md5
from types import new_class
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr
from typing_extensions import TypedDict

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step, task
from pgflow.core.definition.partition import partition_key
from pgflow.errors import DefinitionError


class Customer(BaseModel):
    id: int
    token: SecretStr = SecretStr("")


class Order(BaseModel):
    customer: Customer
    tenant: str = Field(alias="tenantId")
    extra: dict[str, Any] = {}


@dataclass
class Plain:
    tenant: str | None


class Typed(TypedDict):
    tenant: str


@step
def only(ctx: Context[Any]) -> Ok:
    return Ok("done")


def define(kind: Any, **options: Any) -> Any:
    body = {"initial": only, "transitions": {only: {"done": Done}}, "__module__": __name__}
    return new_class("Flow", (Workflow[kind],), {"unique": Unique("flow"), **options}, lambda names: names.update(body))


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        *((Order, path) for path in ("customer.id", "tenantId", "extra.anything.below")),
        *((Plain, "tenant"), (Typed, "tenant"), (dict[str, Any], "any.thing"), (Any, "tenant")),
    ],
)
def test_a_path_of_the_input_is_accepted(kind: Any, path: str) -> None:
    assert define(kind, partition_by=path).graph.spec()["partition_by"] == path.split(".")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Order, {"partition_by": "tenent"}, "partition_by names 'tenent', which does not exist: there are customer"),
        (Order, {"partition_by": "customer.name"}, "partition_by names 'customer.name', .*: customer has id"),
        (Order, {"partition_by": "customer.id.x"}, "partition_by names 'customer.id.x', .*: customer.id has no fields"),
        (Plain, {"partition_by": "other"}, "partition_by names 'other', which does not exist: there are tenant"),
        (Typed, {"partition_by": "other"}, "partition_by names 'other', which does not exist: there are tenant"),
        (Order, {"partition_by": "customer.token"}, "partition_by names the secret 'customer.token'"),
        (Order, {"partition_by": ""}, "partition_by is ''"),
        (Order, {"partition_by": 5}, "partition_by is 5: name an argument or a field"),
        (Order, {"weight": 0}, "weight must be a whole number from 1 to 1000, got 0"),
        (Order, {"weight": 1.5}, "weight must be a whole number"),
    ],
)
def test_a_wrong_option_is_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=f"Flow: {message}"):
        define(kind, **options)


def test_a_task_names_one_of_its_arguments() -> None:
    with pytest.raises(DefinitionError, match="send: partition_by names 'tenent', which does not exist: there are te"):

        @task(partition_by="tenent")
        def send(tenant: str) -> None: ...

    with pytest.raises(DefinitionError, match="heavy: weight must be"):

        @task(weight=0)
        def heavy() -> None: ...


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"a": {"b": "x"}}', "x"),
        ('{"a": {"b": 7}}', "7"),
        ('{"a": {"b": 1e22}}', "10000000000000000000000"),
        ('{"a": {"b": 1.5}}', "1.5"),
        ('{"a": {"b": true}}', "true"),
        ('{"a": {"b": "*"}}', '"*"'),
        ('{"a": {"b": ""}}', None),
        ('{"a": {"b": null}}', None),
        ('{"a": {"b": [1]}}', None),
        ('{"a": {}}', None),
        ('{"a": 5}', None),
        ("[]", None),
        ('{"a": {"b": "' + "x" * 300 + '"}}', f"{'x' * 40} {md5(b'x' * 300, usedforsecurity=False).hexdigest()}"),
    ],
)
def test_a_key_is_the_value_at_the_path(text: str, key: str | None) -> None:
    assert partition_key(text, ("a", "b")) == key


def test_an_app_takes_them() -> None:
    with_keys = define(Plain, partition_by="tenant", weight=3)
    app = Pgflow("postgresql://nowhere/x", workflows=[with_keys])
    assert app.workflows == (with_keys,)
    assert with_keys.graph.spec()["weight"] == 3
    app.close()
