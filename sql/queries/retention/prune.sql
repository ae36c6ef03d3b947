-- Deletes instances that ended too long ago, at most `limit`: of each status after its age in seconds, null: never; `overrides` applies the retention of workflows. => deleted, took (seconds of this statement)
select
    pgflow.prune(
        make_interval(secs => %(completed)s::double precision), make_interval(secs => %(failed)s::double precision),
        make_interval(secs => %(cancelled)s::double precision), %(max_count)s::bigint, %(overrides)s::boolean, %(limit)s::integer) as deleted,
    extract(epoch from clock_timestamp() - statement_timestamp())::double precision as took
