"""An app that a command connects elsewhere: it keeps all else that it was given."""

import inspect
import sys
from types import ModuleType
from typing import Any

import click
import pytest

from pgflow import Pgflow, Retain
from pgflow.cli.app_loader import load_app
from pgflow.cli.options import app_option, database_options


async def archive(rows: object) -> None:
    """Keep nothing."""


@click.command()
@app_option
@database_options
def load(app: str, dsn: str, schema: str) -> Pgflow:
    """Return the app."""
    return load_app(app, dsn, schema)


def test_an_app_at_another_database_is_given_every_option_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Pgflow("postgresql:///own", retention=Retain(max_count=3), on_prune=archive)
    module = ModuleType("an_app_to_load")
    module.__dict__["app"] = own
    monkeypatch.setitem(sys.modules, module.__name__, module)
    signature, given, init = inspect.signature(Pgflow), dict[str, Any](), Pgflow.__init__

    def recording(self: Pgflow, *positional: Any, **options: Any) -> None:
        given.update(signature.bind(*positional, **options).arguments)
        init(self, *positional, **options)

    monkeypatch.setattr(Pgflow, "__init__", recording)
    found = load.main(["--app", "an_app_to_load:app", "--schema", "other"], standalone_mode=False)
    assert (found.schema, found.dsn, found.retention, found.on_prune) == ("other", own.dsn, own.retention, archive)
    assert given.keys() == signature.parameters.keys()
