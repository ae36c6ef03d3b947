"""Insert a picture into the docstring of a class in source text, and change nothing else."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator, Sequence

from pgflow.errors import Invalid

__all__ = ["embed"]

START = "<!-- pgflow:graph:start:{} -->"
END = "<!-- pgflow:graph:end:{} -->"
TRIPLE = re.compile(r"(?P<prefix>[rRuU]?)(?P<quote>\"{3}|'{3})(?P<text>.*)(?P=quote)", re.DOTALL)
# With any name: a workflow may have been renamed. `lead` is the indentation before it.
BLOCK = re.compile(
    r"(?P<lead>[^\S\n]*)"
    + START.format(r"(?P<name>\S+)")
    + r".*?"
    + END.format("(?P=name)"),
    re.DOTALL,
)  # fmt: skip
MARK = re.compile(r"<!-- pgflow:graph:(?:start|end):\S+ -->")


def embed(source: str, qualname: str, name: str, picture: str) -> str:
    r"""Return the source of a module with a picture in the docstring of a class, between markers with `name`.

    An existing picture is replaced, so the function is idempotent. A class without a docstring gets one. `source` has
    "\n" as line ends, `qualname` is the qualified name of the class. The result is verified: it compiles, is the same
    program, and has all other words of the docstring. Raises `Invalid` if there is no such class or more than one, or
    if the verification fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the user's code; its import has shown them
        try:
            changed = _embed(source, qualname, name, picture)
            compile(changed, "<docstring>", "exec", dont_inherit=True)
            is_same = _rest(source, qualname) == _rest(changed, qualname)
        except (SyntaxError, ValueError, tokenize.TokenError) as error:
            if isinstance(error, Invalid):
                raise
            raise Invalid(f"class {qualname}: the picture does not fit into its docstring: {error}") from error
    if not is_same:
        raise Invalid(f"class {qualname}: the picture cannot be put into its docstring without changing the program")
    return changed


def _embed(source: str, qualname: str, name: str, picture: str) -> str:
    lines = source.split("\n")
    node = _find(ast.parse(source), qualname)
    doc = _docstring(node)
    if doc is None:
        return _with_docstring(lines, node, name, picture)
    first, begin = doc.lineno - 1, _column(lines[doc.lineno - 1], doc.col_offset)
    last, end = _end(lines, doc)
    literal = "\n".join([*lines[first:last], lines[last][:end]])[begin:]
    prefix, quote, text = _parts(literal, str(doc.value))
    block = _escape(_block(name, picture), prefix, quote, qualname)
    found = list(BLOCK.finditer(text))
    if len(MARK.findall(text)) != 2 * len(found) or len(found) > 1:
        raise Invalid(f"class {qualname}: the markers of the picture in its docstring do not match: remove them")
    if found:
        lead = found[0]["lead"] if text[: found[0].start()].endswith("\n") else ""
        margin = lead or _margin(lines, node, first, begin)
        text = text[: found[0].start()] + found[0]["lead"] + _indent(block, margin) + text[found[0].end() :]
    else:
        margin = _margin(lines, node, first, begin)
        before = f"{text.rstrip()}\n\n" if text.strip() else "\n"
        text = f"{before}{margin}{_indent(block, margin)}\n{margin}"
    changed = f"{lines[first][:begin]}{prefix}{quote}{text}{quote}{lines[last][end:]}"
    return "\n".join([*lines[:first], changed, *lines[last + 1 :]])


def _with_docstring(lines: list[str], node: ast.ClassDef, name: str, picture: str) -> str:
    head = _head_end(lines, node)
    first = node.body[0]
    number = first.lineno - 1
    quote = '"""'
    block = _escape(_block(name, picture), "", quote, node.name)
    if number > head and not lines[head].rstrip().endswith("\\"):  # otherwise the body begins in the line of the head
        margin = _leading(lines[number])
        return "\n".join(
            [
                *lines[: head + 1],
                f"{margin}{quote}\n{margin}{_indent(block, margin)}\n{margin}{quote}",
                *lines[head + 1 :],
            ]
        )
    column = _column(lines[number], first.col_offset)
    margin = f"{_leading(lines[node.lineno - 1])}    "
    literal = f"{quote}\n{margin}{_indent(block, margin)}\n{margin}{quote}; "
    return "\n".join([*lines[:number], lines[number][:column] + literal + lines[number][column:], *lines[number + 1 :]])


def _find(tree: ast.Module, qualname: str) -> ast.ClassDef:
    scope: ast.Module | ast.ClassDef = tree
    for part in qualname.split("."):
        found = [node for node in _classes(scope.body) if node.name == part]
        if len(found) != 1:
            times = "more than once" if found else "nowhere"
            raise Invalid(f"class {qualname} is defined {times} in this file")
        (scope,) = found
    assert isinstance(scope, ast.ClassDef)  # noqa: S101 -- a qualname has at least one part
    return scope


def _classes(body: Sequence[ast.AST]) -> Iterator[ast.ClassDef]:
    """Yield the classes of a scope, including those under an `if` or `try`."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _classes(list(ast.iter_child_nodes(node)))


def _docstring(node: ast.ClassDef) -> ast.Constant | None:
    first = node.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return first.value
    return None


def _rest(source: str, qualname: str) -> tuple[str, list[str]]:
    """Return what must not change: the program without this docstring, and its words without the picture."""
    tree = ast.parse(source)
    node = _find(tree, qualname)
    doc = _docstring(node)
    if doc is None:
        return ast.dump(tree), []
    del node.body[0]
    return ast.dump(tree), BLOCK.sub("", str(doc.value)).split()


def _parts(literal: str, value: str) -> tuple[str, str, str]:
    """Return prefix, quotes and text of a literal; one without triple quotes is converted to one with them."""
    tokens = tokenize.generate_tokens(io.StringIO(f"({literal})").readline)
    strings = sum(token.type == tokenize.STRING for token in tokens)
    found = TRIPLE.fullmatch(literal)
    if found and strings == 1:
        return found["prefix"], found["quote"], found["text"]
    letters = "".join(
        each if each == "\n" or (each.isprintable() and each != "\\") else each.encode("unicode_escape").decode()
        for each in value
    )
    return "", '"""', re.sub('"{2,}', lambda run: '\\"' * len(run[0]), letters)


def _block(name: str, picture: str) -> str:
    # Indented by four, the picture is a code block in Markdown and a block quote in reStructuredText.
    drawn = [f"    {line}".rstrip() for line in picture.split("\n")]
    return "\n".join([START.format(name), "", *drawn, "", END.format(name)])


def _escape(block: str, prefix: str, quote: str, qualname: str) -> str:
    if prefix in ("r", "R"):
        if quote in block:
            raise Invalid(f"class {qualname}: its docstring is raw, and the picture contains {quote}")
        return block
    return block.replace("\\", "\\\\").replace(quote, f"\\{quote[0]}" * 3)


def _indent(block: str, margin: str) -> str:
    """Indent all lines except the first and empty ones."""
    return re.sub(r"\n(?!\n)", lambda _: f"\n{margin}", block)


def _margin(lines: Sequence[str], node: ast.ClassDef, number: int, column: int) -> str:
    """Return the indentation of the class's body, derived from one line of it."""
    before = lines[number][:column]
    return _leading(before) if not before.strip(" \t(") else f"{_leading(lines[node.lineno - 1])}    "


def _leading(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def _head_end(lines: Sequence[str], node: ast.ClassDef) -> int:
    """Return the number of the line that ends the class's head."""
    depth = 0
    head = "\n".join(lines[node.lineno - 1 :]) + "\n"
    for token in tokenize.generate_tokens(io.StringIO(head).readline):
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
            if token.string == ":" and not depth:
                return node.lineno - 2 + token.end[0]
    raise Invalid(f"class {node.name} has no body")


def _end(lines: Sequence[str], node: ast.expr) -> tuple[int, int]:
    assert node.end_lineno is not None  # noqa: S101 -- parsed from text
    assert node.end_col_offset is not None  # noqa: S101 -- parsed from text
    return node.end_lineno - 1, _column(lines[node.end_lineno - 1], node.end_col_offset)


def _column(line: str, offset: int) -> int:
    """Return the column in characters for an offset in bytes, as the syntax tree has it."""
    return len(line.encode()[:offset].decode())
