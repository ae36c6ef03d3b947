"""The business key: what makes an instance the same as another, and where only one of them may be active."""

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
# White space, as str.isspace() knows it, and control characters, one by one: sql/functions/start.sql refuses the same.
REFUSED = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
VALUE = re.compile(rf"[^{REFUSED}\ud800-\udfff]{{1,200}}")
VALUE_RULE = 'a value has 1 to 200 characters, without white space, control characters or "::"'


@dataclass(frozen=True, slots=True)
class Unique:
    """Which business key a workflow has, and among which instances only one may be active.

    `key` names it: lower-case letters, digits and underscores, starting with a letter. `scope` says among which
    instances: those of the `workflow`, in one `version` of it, of all workflows that have the key (`global`), or
    `none`: any number may be active, and each id gets a random suffix. Raises `DefinitionError`.

    Where scopes differ the wider one counts: an active instance of a workflow with scope `global` excludes every other
    instance with its id, whatever that one's scope, and is excluded by each. So does `workflow` among the versions of
    one workflow. Instances of scope `none` have ids of their own and exclude none.

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
            raise DefinitionError(f"the unique key is a string, not {self.key!r}")
        if not KEY.fullmatch(self.key):
            raise DefinitionError(
                f"the unique key {self.key!r} is refused: use lower-case letters, digits and underscores, "
                "starting with a letter, 63 at most"
            )
        if self.scope not in get_args(Scope):
            known = ", ".join(map(repr, get_args(Scope)))
            raise DefinitionError(f"the unique scope {self.scope!r} is unknown: use one of {known}")


def validate_value(value: object) -> str:
    """Return `value` if it can be a business value, else raise `InvalidValue` with the rule it breaks.

    validate_value("ORD-2024_001")    # "ORD-2024_001"; so do a UUID and an e-mail address
    """
    if not isinstance(value, str):
        raise InvalidValue(f"the business value {value!r} is refused: it is no string", hint=f"Mind that {VALUE_RULE}.")
    if VALUE.fullmatch(value) and SEPARATOR not in value:
        return value
    shown = repr(value) if len(value) <= 200 else f"{value[:20]!r}… of {len(value)} characters"
    raise InvalidValue(f"the business value {shown} is refused: {VALUE_RULE}")


def start_value(key: str, given: object) -> str:
    """Return the business value to start, of a value or of a whole id of this key without a suffix.

    Raises `InvalidValue` for anything else, such as an id of another key.

        start_value("orderid", "orderid::abc123")    # "abc123", as for "abc123" itself
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
    """Return the business id of an instance that needs no uniqueness; `suffix` is eight random hexadecimal digits.

    build_id_with_suffix("visit", "ann", "0a1b2c3d")    # "visit::ann::0a1b2c3d"
    """
    if not SUFFIX.fullmatch(suffix):
        raise InvalidValue(f"the suffix {suffix!r} is refused: it has eight lower-case hexadecimal digits")
    return f"{build_id(key, value)}{SEPARATOR}{suffix}"


def check_id(unique: Unique | None, workflow: str, id: str) -> None:  # noqa: A002 -- as in bare_id
    """Raise `InvalidValue` unless a whole business id is one of a workflow with this key."""
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
        raise InvalidValue(f"{id!r} is not a business id of {workflow}", hint=f"One looks like {example!r}.")


def extract_value(id: str) -> str:  # noqa: A002 -- "id" is the word for it in all of the API
    """Return the business value in a business id of two or three parts. Raises `InvalidValue` when it is none.

    extract_value("orderid::abc123")         # "abc123"
    extract_value("visit::ann::0a1b2c3d")    # "ann"
    """
    key, separator, value = id.partition(SEPARATOR)
    head, has_suffix, suffix = value.rpartition(SEPARATOR)
    if has_suffix and SUFFIX.fullmatch(suffix):
        value = head
    if not separator or not KEY.fullmatch(key) or SEPARATOR in value or not VALUE.fullmatch(value):
        raise InvalidValue(f"{id!r} is no business id", hint='One looks like "orderid::abc123".')
    return value
