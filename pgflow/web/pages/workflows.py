"""The workflows: their registered versions, what their instances do, and the graph of one with where they are."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from pgflow.errors import UnknownWorkflow
from pgflow.store import definition
from pgflow.store.definition import Activity, Listed, StoredDefinition
from pgflow.web.rendering.words import COUNT_LIMIT
from pgflow.web.routing.page import Model, Nav, Page, Params, View

__all__ = ["PAGE", "Workflows"]

WINDOW = 86_400.0  # seconds
MOST_DRAWN = 1000
LOOKED_AT = 5000  # active instances of each status, for the graph


class WorkflowsParams(Params):
    """The workflow whose graph is shown, in its current version unless another is given."""

    workflow: str | None = Field(None, max_length=1000, description="A workflow, for its graph")
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="One of its versions")


class WorkflowRow(BaseModel):
    """A workflow with its versions, the current one first.

    `pending`, `running` and `waiting` count among the newest 10,000 active instances each (`is_cut`: there are more);
    `completed` and `failed` are those of the last 24 hours.
    """

    name: str
    versions: tuple[int, ...]
    steps: int
    registered_at: datetime
    pending: int
    running: int
    waiting: int
    completed: int
    failed: int
    is_cut: bool
    is_in_app: bool

    @property
    def share(self) -> float | None:
        """Which part of what ended has completed; None without any."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None


class Node(BaseModel):
    """A step of the graph, and how many active instances are at it, among the newest 5,000 of each status."""

    key: str
    name: str
    queue: str | None
    instances: int

    @property
    def state(self) -> str:
        """How it is drawn."""
        return "running" if self.instances else "ready"

    @property
    def what(self) -> str:
        """The line below its name."""
        return (
            "no instance"
            if not self.instances
            else f"{self.instances:,} {'instance' if self.instances == 1 else 'instances'}"
        )

    @property
    def pill(self) -> str:
        """Nothing."""
        return ""


class Transition(BaseModel):
    """A transition, on any of `events`; `is_dynamic` if code decides whether it is taken."""

    source: str
    target: str
    events: tuple[str, ...]
    label: str
    is_dynamic: bool
    state: Literal["taken", "live", "dead", "open"] = "taken"
    is_critical: bool = False


class Graph(BaseModel):
    """The graph of one version."""

    workflow: str
    version: int
    versions: tuple[int, ...]
    hash: str
    registered_at: datetime | None
    nodes: tuple[Node, ...]
    edges: tuple[Transition, ...]

    @property
    def is_drawn(self) -> bool:
        """Whether it is small enough to draw."""
        return 0 < len(self.nodes) <= MOST_DRAWN


class Workflows(Model):
    """All registered workflows, and the graph of one."""

    rows: tuple[WorkflowRow, ...]
    graph: Graph | None = None


async def load(view: View[WorkflowsParams]) -> Workflows:
    """Read the workflows; the graph is that of the first one unless another is asked for. Raises `UnknownWorkflow`."""
    schema, params = view.schema, view.params
    listed = await view.read(definition.list(schema))
    activity = await view.read(definition.activity(schema, seconds=WINDOW, limit=COUNT_LIMIT + 1))
    own = {each.name for each in view.context.app.workflows}
    names = list(dict.fromkeys(each.workflow for each in listed))
    versions = {name: [each for each in listed if each.workflow == name] for name in names}
    rows = tuple(_row(name, versions[name], activity.get(name), name in own) for name in names)
    wanted = params.workflow or next(iter(names), None)
    if wanted is None:
        return Workflows(rows=rows)
    stored = await view.read(definition.read(schema, workflow=wanted, version=params.version))
    if stored is None:
        version = "" if params.version is None else f" in version {params.version}"
        hint = f"Registered: {', '.join(names[:20]) or 'none'}."
        raise UnknownWorkflow(f"no workflow is named {wanted!r}{version}", hint=hint)
    places = await view.read(definition.places(schema, workflow=wanted, version=stored.version, limit=LOOKED_AT))
    return Workflows(rows=rows, graph=_graph(stored, versions.get(wanted, []), places))


def _row(name: str, versions: list[Listed], activity: Activity | None, is_in_app: bool) -> WorkflowRow:
    counts = activity or Activity(0, 0, 0, 0, 0, False)
    return WorkflowRow(
        name=name,
        versions=tuple(each.version for each in versions),
        steps=versions[0].steps,
        registered_at=versions[0].registered_at,
        is_in_app=is_in_app,
        **counts._asdict(),
    )


def _graph(stored: StoredDefinition, versions: list[Listed], places: dict[str, int]) -> Graph:
    steps: dict[str, Any] = stored.graph.get("steps", {})
    events: dict[tuple[str, str], list[str]] = {}
    dynamic = set()
    for edge in stored.graph.get("edges", ()):
        for target in edge["targets"]:
            events.setdefault((edge["from"], target), []).append(edge["event"])
            if edge.get("dynamic"):
                dynamic.add((edge["from"], target))
    return Graph(
        workflow=stored.workflow,
        version=stored.version,
        versions=tuple(each.version for each in versions),
        hash=stored.hash,
        registered_at=next((each.registered_at for each in versions if each.version == stored.version), None),
        nodes=tuple(
            Node(key=key, name=str(spec.get("name", key)), queue=spec.get("queue"), instances=places.get(key, 0))
            for key, spec in steps.items()
        ),
        edges=tuple(
            Transition(
                source=source,
                target=target,
                events=tuple(found),
                label=", ".join(found) if len(steps.get(source, {}).get("events", ())) > 1 else "",
                is_dynamic=(source, target) in dynamic,
                state="open" if (source, target) in dynamic else "taken",
            )
            for (source, target), found in events.items()
        ),
    )


PAGE = Page("workflows", "/workflows", "Workflows", Workflows, load, WorkflowsParams, nav=Nav("Workflows", "w", 4))
