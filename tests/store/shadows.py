"""Functions and operators that shadow the built-in ones and raise an error, as an attacker would create them."""

from __future__ import annotations

from itertools import product

import psycopg
from psycopg import sql

from pgflow.database.connect import Connection

__all__ = ["SHADOW_CALLED", "create_shadows", "shadow_tables"]

SHADOW_CALLED = "trapped"  # the message of each of them
# A function for any type is shadowed for the types of our statements: PostgreSQL prefers an exact match.
CONCRETE_TYPES = {
    "anyelement": ("text", "jsonb", "bigint"),
    "anynonarray": ("text", "jsonb", "bigint"),
    "anyarray": ("text[]", "bigint[]"),
    "anycompatible": ("text", "jsonb", "bigint"),
    "anycompatiblearray": ("text[]", "bigint[]"),
    "anycompatiblenonarray": ("text", "jsonb"),
    "any": ("text", "jsonb", "bigint"),
}
TYPES = ["text", "int2", "int4", "int8", "jsonb", "bool", "timestamptz", "interval", "float8", "oid", *CONCRETE_TYPES]
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
ALREADY_EXISTS = (psycopg.errors.DuplicateFunction, psycopg.errors.InvalidFunctionDefinition)


def create_shadows(conn: Connection, text: str, schema: str = "public") -> int:
    """Shadow each built-in function that `text` names, and each operator; returns the number of shadows."""
    created = 0
    for name, types, result in conn.execute(FUNCTIONS.encode(), [text, list(CONCRETE_TYPES)]).fetchall():
        for chosen in _chosen(types):
            signature = sql.SQL(", ").join(chosen)
            created += _run(conn, sql.SQL(TRAP).format(sql.Identifier(schema, name), signature, sql.SQL(result)))
    for symbol, types, result in conn.execute(OPERATORS.encode(), [TYPES, TYPES]).fetchall():
        function = sql.Identifier(schema, f"trap {result}")
        for left, right in _chosen(types):
            _run(conn, sql.SQL(TRAP).format(function, sql.SQL(", ").join([left, right]), sql.SQL(result)))
            make = sql.SQL(OPERATOR).format(sql.Identifier(schema), sql.SQL(symbol), function, left, right)
            created += _run(conn, make)
    return created


def shadow_tables(conn: Connection, schema: str) -> None:
    """Create a temporary table with the name of each table of the schema, which an unpinned path would use instead."""
    relations = "select relname from pg_class where relnamespace = %s::text::regnamespace and relkind in ('r', 'v')"
    for (name,) in conn.execute(relations, [schema]).fetchall():
        conn.execute(sql.SQL("create temporary table {} (like pg_class)").format(sql.Identifier(name)))


def _chosen(types: list[str]) -> product[tuple[sql.SQL, ...]]:
    return product(*([sql.SQL(choice) for choice in CONCRETE_TYPES.get(each, (each,))] for each in types))


def _run(conn: Connection, statement: sql.Composed) -> bool:
    try:
        with conn.transaction():
            conn.execute(statement)
    except ALREADY_EXISTS:  # several pseudo-types map to the same type
        return False
    return True
