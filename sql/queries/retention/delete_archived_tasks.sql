-- Deletes tasks that were archived, unless they have run again since. => deleted
select pgflow.prune_archived_tasks(%(ids)b::bigint[], %(ends)b::text[]) as deleted
