-- Registers the tasks of an app; options that have changed replace the stored ones. => how many were written
with given as materialized (
    select * from unnest(%(names)b::text[], %(hashes)b::text[], %(options)b::text[]) as g (name, hash, options)
),
stored as (
    insert into pgflow.tasks as t (name, hash, options)
    select g.name, g.hash, g.options::jsonb
    from given g
    where not exists (select from pgflow.tasks t where t.name = g.name and t.hash = g.hash)  -- the usual case takes no lock
    order by g.name
    on conflict (name) do update set hash = excluded.hash, options = excluded.options, registered_at = pgflow.now()
    where t.hash <> excluded.hash
    returning 1
)
select count(*) from stored
