"""The business key, and the scope within which at most one instance with the same id may be active."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from pgflow.core.definition.rules.problems import collect_or_raise
from pgflow.core.values.names import SEPARATOR, SUFFIX, bare_id
from pgflow.errors import DefinitionError, InvalidValue

__all__ = [
    "Scope",
    "Unique",
    "build_id",
    "build_id_with_suffix",
    "check_id",
    "extract_value",
    "start_value",
    "validate_value",
]

Scope: TypeAlias = Literal["workflow", "version", "global", "none"]
KEY = re.compile(r"[a-z][a-z0-9_]{0,62}")
# White space as in str.isspace(), and control characters, listed one by one: sql/functions/start.sql has the same list.
REFUSED = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
VALUE = re.compile(rf"[^{REFUSED}\ud800-\udfff]{{1,200}}")
VALUE_RULE = 'it must be a string of 1 to 200 characters, without white space, control characters or "::"'


@dataclass(frozen=True, slots=True)
class Unique:
    """A workflow's business key, and the scope within which at most one instance with the same id may be active.

    `key` is up to 63 lower-case letters, digits and underscores, starting with a letter. Together with the value given
    to `start` it makes the business id, "key::value". `scope` is one of:

    - "workflow" (default): at most one active instance of the workflow with this id;
    - "version": one in each version of the workflow;
    - "global": one among all workflows with this key;
    - "none": any number; each id gets a random suffix.

    Where the scopes of two instances differ, the wider one applies: an active instance with scope "global" excludes
    every other instance with its id, and is excluded by each of them; "workflow" does the same among the versions of
    one workflow. Raises `DefinitionError` for an invalid key or scope.

        Unique("orderid")                      # OrderFlow.start("abc123") has the id "orderid::abc123"
        Unique("email", scope="global")
    """

    key: str
    scope: Scope = "workflow"

    def __post_init__(self) -> None:
        try:
            self._check()
        except DefinitionError as error:
            collect_or_raise(self, error)

    def _check(self) -> None:
        if not isinstance(self.key, str):
            raise DefinitionError(f"the unique key must be a string, got {self.key!r}")
        if not KEY.fullmatch(self.key):
            raise DefinitionError(
                f"the unique key {self.key!r} is refused: use up to 63 lower-case letters, digits and underscores, "
                "starting with a letter"
            )
        if self.scope not in get_args(Scope):
            known = ", ".join(map(repr, get_args(Scope)))
            raise DefinitionError(f"the unique scope {self.scope!r} is unknown: use one of {known}")


def validate_value(value: object) -> str:
    """Return `value` if it can be a business value. Raises `InvalidValue` with the rule that it breaks.

    validate_value("ORD-2024_001")    # "ORD-2024_001"; a UUID and an e-mail address are valid, too
    """
    if not isinstance(value, str):
        raise InvalidValue(f"the business value {value!r} is refused: {VALUE_RULE}")
    if VALUE.fullmatch(value) and SEPARATOR not in value:
        return value
    shown = repr(value) if len(value) <= 200 else f"{value[:20]!r}… of {len(value)} characters"
    raise InvalidValue(f"the business value {shown} is refused: {VALUE_RULE}")


def start_value(key: str, given: object) -> str:
    """Return the business value for a start, given as the value itself or as a whole id with this key.

    Raises `InvalidValue` for anything else, such as an id with another key.

        start_value("orderid", "orderid::abc123")    # "abc123", the same as for "abc123"
    """
    if isinstance(given, str) and given.startswith(prefix := f"{key}{SEPARATOR}"):
        return validate_value(given[len(prefix) :])
    return validate_value(given)


def build_id(key: str, value: str) -> str:
    """Return the business id. Raises `InvalidValue`.

    build_id("orderid", "abc123")    # "orderid::abc123"
    """
    return f"{key}{SEPARATOR}{validate_value(value)}"


def build_id_with_suffix(key: str, value: str, suffix: str) -> str:
    """Return a business id in the scope "none"; `suffix` is eight random hexadecimal digits.

    build_id_with_suffix("visit", "ann", "0a1b2c3d")    # "visit::ann::0a1b2c3d"
    """
    if not SUFFIX.fullmatch(suffix):
        raise InvalidValue(f"the suffix {suffix!r} is refused: it must be eight lower-case hexadecimal digits")
    return f"{build_id(key, value)}{SEPARATOR}{suffix}"


def check_id(unique: Unique | None, workflow: str, id: str) -> None:  # noqa: A002 -- as in bare_id
    """Raise `InvalidValue` unless `id` is a whole business id that a workflow with this key can have."""
    example = "orderid::abc123"
    if unique is not None:
        example = f"{unique.key}{SEPARATOR}abc123" + (f"{SEPARATOR}0a1b2c3d" if unique.scope == "none" else "")
    try:
        extract_value(id)
    except (InvalidValue, AttributeError, TypeError):
        is_of_key = False
    else:
        has_suffix = bare_id(id) != id
        is_of_key = unique is None or (id.startswith(unique.key + SEPARATOR) and has_suffix == (unique.scope == "none"))
    if not is_of_key:
        raise InvalidValue(f"{id!r} is not a business id of {workflow}", hint=f"An example is {example!r}.")


def extract_value(id: str) -> str:  # noqa: A002 -- "id" is the name for it in the whole API
    """Return the business value in a business id of two or three parts. Raises `InvalidValue` for anything else.

    extract_value("orderid::abc123")         # "abc123"
    extract_value("visit::ann::0a1b2c3d")    # "ann"
    """
    key, separator, value = id.partition(SEPARATOR)
    head, has_suffix, suffix = value.rpartition(SEPARATOR)
    if has_suffix and SUFFIX.fullmatch(suffix):
        value = head
    if not separator or not KEY.fullmatch(key) or SEPARATOR in value or not VALUE.fullmatch(value):
        raise InvalidValue(f"{id!r} is not a business id", hint='An example is "orderid::abc123".')
    return value
