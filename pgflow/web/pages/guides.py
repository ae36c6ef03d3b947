"""Help: the filter language, the states, the guides, and the same in a terminal."""

from __future__ import annotations

from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from pgflow.errors import NotFound
from pgflow.web.rendering.guides import guides, rendered
from pgflow.web.routing.page import Model, NoParams, Page, Params, View

__all__ = ["GUIDE", "PAGE", "GuidePage", "Help"]


class GuideParams(Params):
    """A guide by its name."""

    guide: str = Field(max_length=100, description="The name of the guide, such as `tasks`")


class GuideRow(BaseModel):
    """A guide: its name in URLs, its title and its first sentence."""

    name: str
    title: str
    summary: str


class Help(Model):
    """The guides that are installed."""

    guides: tuple[GuideRow, ...]


class GuidePage(Model):
    """One guide, as Markdown (`text`) and as HTML."""

    name: str
    title: str
    text: str
    html: str
    guides: tuple[GuideRow, ...]


def _rows() -> tuple[GuideRow, ...]:
    return tuple(GuideRow(name=each.name, title=each.title, summary=each.summary) for each in guides())


async def load(view: View[NoParams]) -> Help:
    """List the guides."""
    return Help(guides=_rows())


async def load_guide(view: View[GuideParams]) -> GuidePage:
    """Read one guide. Raises `NotFound`."""
    name = view.params.guide
    found = next((each for each in guides() if each.name == name), None)
    if found is None:
        raise NotFound(f"there is no guide named {name!r}", hint="The help page lists them.")
    prefix = str(view.request.scope.get("root_path", "")).rstrip("/")
    html = await run_in_threadpool(rendered, found, lambda other: f"{prefix}/help/{other}")
    return GuidePage(name=name, title=found.title, text=found.text, html=str(html), guides=_rows())


PAGE = Page("help", "/help", "Help", Help, load)
GUIDE = Page("help.guide", "/help/{guide}", "A guide", GuidePage, load_guide, GuideParams)
