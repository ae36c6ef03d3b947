-- Replaces the stored instance of a run; an active one continues. => run
select pgflow.put(
    %(run)s::bigint, %(id)s::text, %(workflow)s::text, %(version)s::integer, %(status)s::text, %(unique_key)s::text, %(input)s::jsonb,
    %(tags)b::text[], %(metadata)s::jsonb, %(error)s::jsonb, %(created_at)s::timestamptz, %(finished_at)s::timestamptz, %(history)s::jsonb,
    %(due)s::timestamptz, %(queue)s::text, notify => %(notify)s::boolean, signals => %(signals)s::jsonb, step_configs => %(step_configs)s::jsonb,
    deadline => %(deadline)s::timestamptz
) as run
