"""The payload store that docs/payloads.md shows for S3 works for an app, with a client that behaves like boto3's."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.payloads.store import checked_store
from tests.acceptance.pages import page
from tests.conftest import Server


class NoSuchKey(Exception):
    """What the client raises for an object that does not exist."""


class Client:
    """The calls of boto3's S3 client that the example makes, on a dictionary."""

    class exceptions:
        NoSuchKey: ClassVar = NoSuchKey

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, datetime]] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:
        self.objects[Key] = (Body, datetime.now(UTC))

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise NoSuchKey(Key)
        return {"Body": io.BytesIO(self.objects[Key][0])}

    def delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> None:
        assert 0 < len(Delete["Objects"]) <= 1000
        for each in Delete["Objects"]:
            self.objects.pop(each["Key"], None)

    def get_paginator(self, call: str) -> Client:
        assert call == "list_objects_v2"
        return self

    def paginate(self, *, Bucket: str, Prefix: str) -> Iterator[dict[str, Any]]:
        for key, (_, at) in list(self.objects.items()):
            if key.startswith(Prefix):
                yield {"Contents": [{"Key": key, "LastModified": at}]}
        yield {}


@step
def double(ctx: Context[Any]) -> Ok:
    return Ok("done", ctx.initial * 2)


class Doubling(Workflow[Any], unique=Unique("doubling")):
    initial = double
    transitions = {double: {"done": Done}}


@pytest.fixture
def bucket() -> Any:
    namespace: dict[str, Any] = {}
    exec(page("pgflow/docs/payloads.md").files["bucket.py"], namespace)  # noqa: S102 -- the page's own code
    return namespace["Bucket"](Client(), "shop", "payloads/")


def test_the_example_keeps_the_contract(bucket: Any) -> None:
    assert checked_store(bucket) is not None
    bucket.put("a" * 65, b"x")
    assert bucket.get("a" * 65) == b"x"
    assert list(bucket.list(timedelta(hours=1))) == []
    bucket.client.objects["payloads/" + "a" * 65] = (b"x", datetime.now(UTC) - timedelta(hours=2))
    assert list(bucket.list(timedelta(hours=1))) == ["a" * 65]
    bucket.delete(["a" * 65, "b" * 65])
    bucket.delete([])
    with pytest.raises(KeyError):
        bucket.get("a" * 65)


def test_an_app_keeps_its_large_values_in_the_bucket(
    bucket: Any, server: Server, template: str, new_database: Callable[..., str]
) -> None:
    app = Pgflow(new_database(server, template), workflows=[Doubling], payload_store=bucket, store_above=100)
    app.start(Doubling, "a", "x" * 200)
    app.run_worker(drain=True)
    assert app.get(Doubling, "a").steps == {"double": "x" * 400}
    assert sorted(len(data) for data, _ in bucket.client.objects.values()) == [202, 402]
    app.close()
