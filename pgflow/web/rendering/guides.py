"""The guides of `pgflow/docs`, rendered from Markdown for the help pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

__all__ = ["Guide", "guides", "rendered"]

GUIDE = re.compile(r"([a-z-]+)\.md(#.*)?")
NOT_A_WORD = re.compile(r"[^\w\- ]")
SUMMARY_LETTERS = 120


@dataclass(frozen=True, slots=True)
class Guide:
    """One guide: its name in URLs, its title, its first sentence, and its Markdown."""

    name: str
    title: str
    summary: str
    text: str


@lru_cache(maxsize=1)
def guides() -> Sequence[Guide]:
    """Return all guides that are installed, in the order of their titles."""
    found = []
    for each in files("pgflow").joinpath("docs").iterdir():
        if each.name.endswith(".md"):
            text = each.read_text(encoding="utf-8")
            found.append(_guide(each.name.removesuffix(".md"), text))
    return sorted(found, key=lambda guide: guide.title)


def _guide(name: str, text: str) -> Guide:
    title, _, rest = text.removeprefix("# ").partition("\n")
    paragraphs = [each for each in rest.split("\n\n") if each.strip() and each.lstrip()[0] not in "#|"]
    paragraph = paragraphs[0].strip().replace("\n", " ")
    first = re.split(r"(?<=[.:])\s", re.sub(r"[*`]|\[([^\]]*)\]\([^)]*\)", r"\1", paragraph))[0]
    return Guide(name, title.strip(), first[:SUMMARY_LETTERS].rstrip(":."), text)


def rendered(guide: Guide, link: Callable[[str], str]) -> Markup:
    """Return a guide as HTML; `link` makes the URL of another guide. What leads elsewhere is text, without a link."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(guide.text)
    known = {each.name for each in guides()}
    for number, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(tokens[number + 1].content))
        elif token.type == "fence":
            token.info = ""  # no classes of languages: nothing is highlighted
        elif token.type == "table_open":
            token.attrSet("class", "table table-tight")
        _rewrite(token.children or (), known, link)
    return Markup(parser.renderer.render(tokens[3:], parser.options, {}))  # noqa: S704 -- html is off, so all is escaped


def _rewrite(tokens: Sequence[Token], known: set[str], link: Callable[[str], str]) -> None:
    """Let links lead to other guides; make text of pictures and of links that lead elsewhere."""
    tag = "a"
    for token in tokens:
        if token.type == "image":
            token.type = "text"
        elif token.type == "link_close":
            token.tag = tag
        elif token.type == "link_open":
            target = str(token.attrGet("href") or "")
            found = GUIDE.fullmatch(target)
            if found is not None and found[1] in known:
                token.attrSet("href", link(found[1]) + (found[2] or ""))
            elif not target.startswith("#"):
                token.tag, token.attrs = "span", {"class": "soft"}
            tag = token.tag


def _anchor(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return NOT_A_WORD.sub("", heading.lower()).replace(" ", "-")
