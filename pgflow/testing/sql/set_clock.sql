-- Replaces the clock of a test's schema; {body} is what it evaluates. Stable like the original, so that indexes on time columns are still used.
create or replace function pgflow.now() returns timestamptz
language sql stable parallel safe
as {body}
