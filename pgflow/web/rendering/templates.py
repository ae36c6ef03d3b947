"""The templates: every value is escaped, and a name that is missing is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pgflow.web.rendering import charts, words
from pgflow.web.rendering.graph import graph
from pgflow.web.rendering.states import STATES
from pgflow.web.rendering.timeline import timeline
from pgflow.web.rendering.traces import frames
from pgflow.web.rendering.values import json_view, line

__all__ = ["STATIC", "Links", "Templates"]

TEMPLATES = Path(__file__).parents[1] / "templates"
STATIC = Path(__file__).parents[1] / "static"
PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")


@dataclass(frozen=True, slots=True)
class Links:
    """Makes every URL of the dashboard: by the name of a route, under the prefix that it is mounted at.

    links("instance", run=7, step="charge")    # "/pgflow/instances/7?step=charge"
    """

    prefix: str
    paths: Mapping[str, str]

    def __call__(self, name: str, /, **values: Any) -> str:
        """Return the URL of a page or an action; parameters that its path does not have become its query."""
        rest = {key: value for key, value in values.items() if value not in (None, "")}
        path = PARAMETER.sub(lambda found: quote(str(rest.pop(found[1])), safe=""), self.paths[name])
        return f"{self.prefix}{path}" + (f"?{urlencode(rest, doseq=True, quote_via=quote)}" if rest else "")

    def has(self, name: str) -> bool:
        """Whether there is a route of this name: pages link to others only where these exist."""
        return name in self.paths

    def static(self, file: str) -> str:
        """Return the URL of a static file, which changes with the file, so that browsers may keep it."""
        version = int((STATIC / file).stat().st_mtime)
        return f"{self.prefix}/static/{file}?v={version:x}"

    def api(self, name: str, /, **values: Any) -> str:
        """Return the URL of a page's resource in the API."""
        return self.prefix + "/api/v1" + self(name, **values).removeprefix(self.prefix)


class Templates:
    """Renders templates; `shared` is what all of them see."""

    def __init__(self, shared: Mapping[str, Any]) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(
            STATES=STATES,
            charts=charts,
            graph=graph,
            json_view=json_view,
            line=line,
            timeline=timeline,
            frames=frames,
            **shared,
        )
        names: Sequence[str] = ("ago", "clock", "count", "duration", "exact", "iso", "rate", "size", "when")
        self._environment.filters.update({name: getattr(words, name) for name in names})

    def render(self, template: str, **values: Any) -> str:
        """Return a template filled with `values`."""
        return self._environment.get_template(template).render(values)
