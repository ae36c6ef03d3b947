-- Deletes instances that were archived, unless they have changed since. => deleted
select pgflow.prune_archived(%(runs)b::bigint[], %(revisions)b::integer[]) as deleted
