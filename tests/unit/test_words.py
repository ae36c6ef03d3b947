"""Every text of the project is plain engineering English: no phrase that a reader of psycopg or River has to translate.

`python -m tests.unit.test_words pgflow/store sql` lists the findings of some files or folders.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.test_house import ROOT, project_files

FOLDERS = ("README.md", "bin", "pgflow", "sql", "tests")
# Released: their checksums cover the comments.
EXEMPT = ("sql/migrations/", "tests/unit/test_words.py")

# Pattern -> what to write instead.
BANNED = {
    r"nobody|somebody|whoever|whomever|whom": "name the role: worker, caller, client, session, listener",
    r"heirs?|mouth": "worker, target, listener: the field's term",
    r"(?<!there )(?<!there\n)(?:is|are|was|were) no(?! longer\b| more than\b| other\b| less\b)": "is not a ...",
    r"(?:is|are|was|were) to be": "must be, will be",
    r"anew|any more|by now|meanwhile|thereof|thereby|wherein|hence|whence|thither": "again, now, while, so",
    r"says?|said|tells?|telling|told|hears?|heard|speaks?|spoken|spoke": "return, log, emit, report, state",
    r"what (?:\w+ ){1,3}(?:came|comes|come) to|what (?:came|comes|became|becomes) of": "the outcome, the result",
    r"what (?:stands|lies|came|has come|follows|belongs|goes)": "name the thing itself",
    r"what (?:is|was) (?:sealed|dead|due|left|kept|held|there|dear|ours)": "name the thing itself",
    r"stands? (?:on|in|before|behind|where|at|there|still|by|alone)": "is, depends on, precedes",
    r"mend(?:s|ed|ing)?|unmended": "fix, repair",
    r"taken? up again|take (?:it|them|one) up|goes on by itself|lets? go of": "resume, continue, release",
    r"in vain|at hand|dear|kin|sickness": "for nothing, available, expensive, related, problem",
    r"oust(?:s|ed)?|ails?|lacks\(\)|erred": "terminate, liveness_error(), readiness_error(), failed",
    r"as (?:things|it) stands?": "in the current state",
    r"of (?:which|what) \w+ has (?:\w+ )?(?:spoken|said)": "undeclared",
}
PATTERNS = {re.compile(rf"\b(?:{banned})\b", re.IGNORECASE): instead for banned, instead in BANNED.items()}
ANY = re.compile(rf"\b(?:{'|'.join(BANNED)})\b", re.IGNORECASE)  # one search for the many texts without a finding


def project_texts(paths: tuple[str, ...] = FOLDERS) -> Iterator[Path]:
    """Yield the project's Python, SQL, Markdown and shell files in some files or folders."""
    for file in project_files():
        relative = str(file.relative_to(ROOT))
        is_wanted = any(file.is_relative_to(ROOT / path) for path in paths)
        if is_wanted and not relative.startswith(EXEMPT) and file.suffix in {".py", ".sql", ".md", ""}:
            yield file


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each comment, string and function name of a Python file, or each line of another."""
    source = path.read_text(errors="replace")
    if path.suffix != ".py":
        for number, line in enumerate(source.splitlines(), start=1):
            if path.suffix == ".sql":
                _, dashes, line = line.partition("--")
                if not dashes:
                    continue
            yield number, line
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name.replace("_", " ")


def findings(path: Path) -> list[str]:
    """Return the banned phrases of a file, each with its line and what to write instead."""
    return [
        f"{path.relative_to(ROOT)}:{line + text.count(chr(10), 0, found.start())}: {found.group()!r} -> {instead}"
        for line, text in texts(path)
        if ANY.search(text)
        for pattern, instead in PATTERNS.items()
        for found in pattern.finditer(text)
    ]


def test_no_text_has_a_banned_phrase() -> None:
    found = [finding for path in project_texts() for finding in findings(path)]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "What stands before it is not looked at",
        "'10' is no duration",
        "Nobody has it by default",
        "Say of an error what it means",
        "read what an attempt came to",
    ],
)
def test_banned_phrases_are_found(text: str) -> None:
    assert any(pattern.search(text) for pattern in PATTERNS)


@pytest.mark.parametrize("text", ["there is no queue", "the job is no longer claimed", "what is wrong with the value"])
def test_plain_sentences_are_accepted(text: str) -> None:
    assert not any(pattern.search(text) for pattern in PATTERNS)


if __name__ == "__main__":
    for finding in (f for path in project_texts(tuple(sys.argv[1:]) or FOLDERS) for f in findings(path)):
        print(finding)
