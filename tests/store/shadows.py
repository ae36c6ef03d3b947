"""What an attacker plants for others to step on: shadows of built-in functions and operators that cry out."""

from __future__ import annotations

from itertools import product

import psycopg
from psycopg import sql

from pgflow.database.connect import Connection

__all__ = ["TRAPPED", "lay", "shadow_tables"]

TRAPPED = "trapped"  # what each of them says
# What is declared for any type is shadowed for those that our statements use: an exact match goes before a general one.
STAND_INS = {
    "anyelement": ("text", "jsonb", "bigint"),
    "anynonarray": ("text", "jsonb", "bigint"),
    "anyarray": ("text[]", "bigint[]"),
    "anycompatible": ("text", "jsonb", "bigint"),
    "anycompatiblearray": ("text[]", "bigint[]"),
    "anycompatiblenonarray": ("text", "jsonb"),
    "any": ("text", "jsonb", "bigint"),
}
TYPES = ["text", "int2", "int4", "int8", "jsonb", "bool", "timestamptz", "interval", "float8", "oid", *STAND_INS]
RESULT = "case y.typtype when 'p' then 'text' || repeat('[]', (y.typname like '%%array')::integer) else y.typname end"
# Name, types and result of each built-in function whose name appears in a text.
FUNCTIONS = f"""
select distinct p.proname::text, array(
    select t.typname::text from unnest(p.proargtypes) with ordinality a (oid, ord)
    join pg_type t on t.oid = a.oid order by a.ord), {RESULT}
from pg_proc p join pg_type y on y.oid = p.prorettype
where p.pronamespace = 'pg_catalog'::regnamespace and p.prokind <> 'p'
    and p.proname::text in (select m[1] from regexp_matches(%s, '[a-z_0-9]+', 'g') m)
    and not exists (
        select from unnest(p.proargtypes) a (oid) join pg_type t on t.oid = a.oid
        where t.typtype = 'p' and t.typname <> all (%s::text[]))
"""  # noqa: S608 -- what is put in stands above
# Symbol, types and result of each built-in operator between the types that ours work on.
OPERATORS = f"""
select distinct o.oprname::text, array[l.typname::text, r.typname::text], {RESULT}
from pg_operator o
join pg_type l on l.oid = o.oprleft join pg_type r on r.oid = o.oprright join pg_type y on y.oid = o.oprresult
where o.oprnamespace = 'pg_catalog'::regnamespace and l.typname = any (%s) and r.typname = any (%s)
"""  # noqa: S608
TRAP = "create function {}({}) returns {} language plpgsql as $$ begin raise exception 'trapped'; end $$"
OPERATOR = "create operator {}.{} (function = {}, leftarg = {}, rightarg = {})"
KNOWN_ALREADY = (psycopg.errors.DuplicateFunction, psycopg.errors.InvalidFunctionDefinition)


def lay(conn: Connection, text: str, schema: str = "public") -> int:
    """Shadow each built-in function that `text` names, and each operator; returns how many shadows there are."""
    planted = 0
    for name, types, result in conn.execute(FUNCTIONS.encode(), [text, list(STAND_INS)]).fetchall():
        for chosen in _chosen(types):
            signature = sql.SQL(", ").join(chosen)
            planted += _run(conn, sql.SQL(TRAP).format(sql.Identifier(schema, name), signature, sql.SQL(result)))
    for symbol, types, result in conn.execute(OPERATORS.encode(), [TYPES, TYPES]).fetchall():
        function = sql.Identifier(schema, f"trap {result}")
        for left, right in _chosen(types):
            _run(conn, sql.SQL(TRAP).format(function, sql.SQL(", ").join([left, right]), sql.SQL(result)))
            make = sql.SQL(OPERATOR).format(sql.Identifier(schema), sql.SQL(symbol), function, left, right)
            planted += _run(conn, make)
    return planted


def shadow_tables(conn: Connection, schema: str) -> None:
    """Make a temporary table named like each of the schema's, to be written to or read in its place."""
    relations = "select relname from pg_class where relnamespace = %s::text::regnamespace and relkind in ('r', 'v')"
    for (name,) in conn.execute(relations, [schema]).fetchall():
        conn.execute(sql.SQL("create temporary table {} (like pg_class)").format(sql.Identifier(name)))


def _chosen(types: list[str]) -> product[tuple[sql.SQL, ...]]:
    return product(*([sql.SQL(choice) for choice in STAND_INS.get(each, (each,))] for each in types))


def _run(conn: Connection, statement: sql.Composed) -> bool:
    try:
        with conn.transaction():
            conn.execute(statement)
    except KNOWN_ALREADY:  # some stand-ins come to the same
        return False
    return True
