"""One instance: its run as a graph and a timeline, its steps, and its data and signals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, Field

from pgflow.errors import InstanceNotFound, UnknownStep
from pgflow.store import definition, run
from pgflow.store.run_rows import LiveJob, Recorded, Run, SentSignal
from pgflow.web.rendering.values import SHOWN_BYTES, Value, value_of
from pgflow.web.routing.page import Model, Page, Params, View
from pgflow.web.run.journey import journey
from pgflow.web.run.models import Edge, Reason, Step
from pgflow.web.run.why import reasons

__all__ = ["DATA", "RUN", "STEPS", "InstancePage", "OfRun"]

MOST_STEPS = 5000
MOST_SIGNALS = 200
MOST_DRAWN = 1000
LINE_BYTES = 400  # of the outputs in tables; that of the selected step is read whole


class OfRun(Params):
    """An instance by its run."""

    run: int = Field(ge=0, le=2**63 - 1, description="The run id")


class RunParams(OfRun):
    """`step` is the step whose details are shown."""

    step: str | None = Field(None, max_length=1000, description="A step, for its details")


class StepsParams(OfRun):
    """`q` is a part of a step's name or state."""

    q: str = Field("", max_length=200, description="Only steps with this in their name, state or worker")


class Sibling(BaseModel):
    """Another run of the same business id."""

    run: str
    workflow: str
    state: str
    started_at: datetime


class Signal(BaseModel):
    """A signal: consumed, kept in the mailbox, or scheduled for `due_at`."""

    name: str
    step: str | None
    payload: Value
    state: str
    at: datetime


class InstancePage(Model):
    """An instance with its steps and edges, and why each live branch waits."""

    run: str
    id: str
    value: str
    workflow: str
    version: int
    state: str
    status: str
    tags: tuple[str, ...]
    started_at: datetime
    finished_at: datetime | None
    deadline: datetime | None
    error: Value
    error_reason: str | None
    now: datetime
    steps: tuple[Step, ...]
    edges: tuple[Edge, ...]
    why: tuple[Reason, ...]
    counts: dict[str, int]
    queues: tuple[str, ...]
    step: Step | None = None
    has_definition: bool
    is_cut: bool
    siblings: tuple[Sibling, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether it can still be cancelled and signalled."""
        return self.status in ("pending", "running", "waiting")

    @property
    def is_drawn(self) -> bool:
        """Whether its graph is small enough to draw."""
        return 0 < len(self.steps) <= MOST_DRAWN


class DataPage(InstancePage):
    """An instance with its input, its outputs, its metadata and its signals."""

    input: Value
    outputs: dict[str, Value]
    metadata: Value
    signals: tuple[Signal, ...]


def shown_by(view: View[OfRun]) -> Callable[[str | None, int | None], Value]:
    """Return how this dashboard shows a stored value."""
    settings = view.context.settings

    def shown(text: str | None, size: int | None) -> Value:
        return value_of(text, size, settings.hidden_keys, shows_data=settings.shows_data)

    return shown


async def found_run(view: View[OfRun], *, size: int = SHOWN_BYTES) -> Run:
    """Read the instance that a request is about. Raises `InstanceNotFound`."""
    number = view.params.run
    found = await view.read(run.get(view.schema, number, size=size))
    if found is None:
        raise InstanceNotFound(
            f"there is no instance with run {number}", hint="It may have been deleted: workers prune ended ones."
        )
    return found


async def read_instance(
    view: View[OfRun], step: str | None = None, *, size: int = LINE_BYTES
) -> tuple[InstancePage, Run, list[Recorded], list[LiveJob]]:
    """Read an instance, and what it was made of. Raises `InstanceNotFound`, `UnknownStep`."""
    schema, number = view.schema, view.params.run
    found = await found_run(view)
    results = await view.read(run.results(schema, number, size=size, limit=MOST_STEPS + 1))
    jobs = await view.read(run.jobs(schema, number, limit=MOST_STEPS))
    stored = await view.read(definition.read(schema, workflow=found.workflow, version=found.version))
    siblings = await view.read(run.others(schema, found.id, limit=10))
    shown = shown_by(view)
    walked = journey(found, {} if stored is None else stored.graph, results[:MOST_STEPS], jobs, shown)
    by_key = {each.key: each for each in walked.steps}
    if step is not None and step not in by_key:
        raise UnknownStep(f"{found.workflow} has no step {step!r}", hint="It has: " + ", ".join([*by_key][:20]) + ".")
    held = any(each.state == "held" for each in walked.steps)
    error = shown(found.error, None)
    page = InstancePage(
        run=str(found.run),
        id=found.id,
        value=found.id.partition("::")[2],
        workflow=found.workflow,
        version=found.version,
        state="held" if held and found.status in ("running", "waiting") else found.status,
        status=found.status,
        tags=found.tags,
        started_at=found.created_at,
        finished_at=found.finished_at,
        deadline=found.deadline,
        error=error,
        error_reason=error.value.get("reason") if isinstance(error.value, dict) else None,
        now=found.now,
        steps=walked.steps,
        edges=walked.edges,
        why=tuple(reasons(walked.steps, walked.edges, jobs, found.now)) if found.finished_at is None else (),
        counts=dict(Counter(each.state for each in walked.steps)),
        queues=tuple(sorted({job.queue for job in jobs})),
        step=None if step is None else by_key[step],
        has_definition=stored is not None,
        is_cut=len(results) > MOST_STEPS,
        siblings=tuple(
            Sibling(run=str(each.run), workflow=each.workflow, state=each.status, started_at=each.created_at)
            for each in siblings
            if each.run != found.run
        ),
    )
    return page, found, results, jobs


async def load_run(view: View[RunParams]) -> InstancePage:
    """Read the run: graph, timeline, why, and the selected step with its whole output."""
    page, found, *_ = await read_instance(view, view.params.step)
    if page.step is not None and page.step.output.state == "large":
        whole = await view.read(run.results(view.schema, found.run, size=SHOWN_BYTES, limit=MOST_STEPS))
        result = next(each for each in whole if each.step == page.step.key)
        output = shown_by(view)(result.output, result.output_size)
        return page.model_copy(update={"step": page.step.model_copy(update={"output": output})})
    return page


async def load_steps(view: View[StepsParams]) -> InstancePage:
    """Read the steps that match `q`."""
    page, *_ = await read_instance(view)
    words = view.params.q.lower().split()
    if not words:
        return page

    def matches(step: Step) -> bool:
        text = " ".join(filter(None, (step.key, step.state, step.worker, step.queue, f"state:{step.state}"))).lower()
        return all(word in text for word in words)

    return page.model_copy(update={"steps": tuple(filter(matches, page.steps))})


async def load_data(view: View[OfRun]) -> DataPage:
    """Read the input, the outputs, the metadata and the signals."""
    shown = shown_by(view)
    page, found, results, _ = await read_instance(view, size=SHOWN_BYTES)
    sent = await view.read(run.signals(view.schema, found.run, size=SHOWN_BYTES, limit=MOST_SIGNALS))
    return DataPage(
        **dict(page),
        input=shown(found.input, found.input_size),
        outputs={each.step: shown(each.output, each.output_size) for each in results if each.output is not None},
        metadata=shown(found.metadata, None),
        signals=tuple(_signal(each, shown, page.now) for each in sent if not each.name.startswith("pgflow:")),
    )


def _signal(each: SentSignal, shown: Callable[[str | None, int | None], Value], now: datetime) -> Signal:
    state = "scheduled" if each.due_at is not None else "waiting" if each.consumed_at is None else "completed"
    at = each.due_at or each.sent_at or now
    return Signal(name=each.name, step=each.step, payload=shown(each.payload, each.payload_size), state=state, at=at)


RUN = Page("instance", "/instances/{run:int}", "An instance", InstancePage, load_run, RunParams)
STEPS = Page(
    "instance.steps", "/instances/{run:int}/steps", "Steps of an instance", InstancePage, load_steps, StepsParams
)
DATA = Page("instance.data", "/instances/{run:int}/data", "Data of an instance", DataPage, load_data, OfRun)
