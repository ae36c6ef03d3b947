-- Returns the runs of instances that match a filter, in order: `oldest` first, after run `after` and before run `before`.
-- `filter` is the document that pgflow/core/models/query.py makes of a filter text. Its keys, all optional, all of which must match:
--     state, workflow, version, run, id, queue, step, worker   lists: one of the values
--     tag, error                                               lists of lists: of each list one of the values
--     attempt, priority                                        {"any": [...], "min": n, "max": n}
--     older_than, younger_than                                 seconds since the start
--     input, metadata                                          a jsonpath predicate
--     not                                                      an object with lists under the keys of the first two groups, `attempt`, `priority`: none of the values
-- queue, step, attempt, priority and worker are those of one live job; of a failed instance those of the step that failed.
-- Always planned for the values given: the planner removes the conditions of absent keys, and each other one can use its index.
create or replace function pgflow.matching_runs(
    filter jsonb, after bigint default null, before bigint default null, oldest boolean default true, "limit" bigint default null
) returns setof bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
    f record;
    n record;
    bad text;
    only_state text;
    only_workflow text;
    first_tag text[];
    ids text[];
    has_place boolean;
    needs_job boolean;
begin
    select k into bad from jsonb_object_keys(filter) k
    where k <> all ('{state,workflow,version,run,id,queue,step,worker,tag,error,attempt,priority,older_than,younger_than,input,metadata,not}')
    union all
    select 'not.' || k from jsonb_object_keys(coalesce(filter -> 'not', '{}')) k
    where k <> all ('{state,workflow,version,run,id,queue,step,worker,tag,error,attempt,priority}')
    limit 1;
    if found then
        raise exception using errcode = 'PF008', message = format('a filter of instances has no key %L', bad),
            hint = 'Keys: state, workflow, version, run, id, queue, step, worker, tag, error, attempt, priority, older_than, younger_than, input, metadata, not.';
    end if;
    select * into f from jsonb_to_record(filter) as r (
        state text[], workflow text[], version integer[], run bigint[], id text[], queue text[], step text[], worker bigint[], tag jsonb, error jsonb,
        attempt jsonb, priority jsonb, older_than double precision, younger_than double precision, input jsonpath, metadata jsonpath);
    select * into n from jsonb_to_record(coalesce(filter -> 'not', '{}')) as r (
        state text[], workflow text[], version integer[], run bigint[], id text[], queue text[], step text[], worker bigint[], tag text[], error text[],
        attempt bigint[], priority bigint[]);
    select s into bad from unnest(f.state || n.state) s where s <> all ('{pending,running,waiting,completed,failed,cancelled}') limit 1;
    if found then
        raise exception using errcode = 'PF008', message = format('a filter of instances has no state %L', bad),
            hint = 'States: pending, running, waiting, completed, failed, cancelled.';
    end if;
    if cardinality(f.state) = 1 then
        only_state := f.state[1];  -- its index also gives the order
    end if;
    if cardinality(f.workflow) = 1 then
        only_workflow := f.workflow[1];
    end if;
    if f.tag is not null then
        first_tag := array(select jsonb_array_elements_text(f.tag -> 0));
    end if;
    if f.id is not null then  -- a value stands for the id under each key
        ids := array(
            select v from unnest(f.id) v where strpos(v, '::') > 0
            union
            select d.unique_key || '::' || v from unnest(f.id) v cross join (select distinct d.unique_key from pgflow.definitions d) d
            where strpos(v, '::') = 0);
    end if;
    needs_job := f.worker is not null or f.priority is not null;
    has_place := needs_job or f.queue is not null or f.step is not null or f.attempt is not null;

    return query
    select i.run
    from pgflow.instances i
    where (only_state is null or i.status = only_state)
        and (f.state is null or only_state is not null or i.status = any (f.state))
        and (only_workflow is null or (i.workflow ~>=~ only_workflow and i.workflow ~<=~ only_workflow))
        and (f.workflow is null or only_workflow is not null or i.workflow = any (f.workflow))
        and (f.version is null or i.version = any (f.version))
        and (f.run is null or i.run = any (f.run))
        and (ids is null or i.id = any (ids))
        and (matching_runs.after is null or i.run > matching_runs.after)
        and (matching_runs.before is null or i.run < matching_runs.before)
        and (f.older_than is null or i.created_at < pgflow.now() - make_interval(secs => f.older_than))
        and (f.younger_than is null or i.created_at > pgflow.now() - make_interval(secs => f.younger_than))
        and (first_tag is null or i.tags && first_tag)
        and (f.tag is null or not exists (
            select from jsonb_array_elements(f.tag) g
            where not i.tags && array(select jsonb_array_elements_text(g))))
        and (f.input is null or i.input @@ f.input)
        and (f.metadata is null or i.metadata @@ f.metadata)
        and (f.error is null or not exists (
            select from jsonb_array_elements(f.error) g
            where not exists (select from jsonb_array_elements_text(g) v where pgflow.has_error(i.run, i.error, v))))
        and (not has_place or i.status in ('pending', 'running', 'waiting', 'failed'))  -- few of many: an index finds them
        and (not has_place or exists (
            select from pgflow.jobs j
            where j.run = i.run
                and (f.queue is null or j.queue = any (f.queue))
                and (f.step is null or j.step = any (f.step))
                and (f.worker is null or j.worker = any (f.worker))
                and (f.attempt is null or pgflow.in_range(j.attempt, f.attempt))
                and (f.priority is null or pgflow.in_range(j.priority, f.priority))
        ) or (
            i.status = 'failed' and not needs_job
            and (f.queue is null or pgflow.failed_queue(i.workflow, i.version, i.error) = any (f.queue))
            and (f.step is null or i.error ->> 'step' = any (f.step))
            and (f.attempt is null or pgflow.in_range(pgflow.failed_attempt(i.error), f.attempt))
        ))
        and (n.state is null or i.status <> all (n.state))
        and (n.workflow is null or i.workflow <> all (n.workflow))
        and (n.version is null or i.version <> all (n.version))
        and (n.run is null or i.run <> all (n.run))
        and (n.id is null or (i.id <> all (n.id) and substr(i.id, strpos(i.id, '::') + 2) <> all (n.id)))
        and (n.tag is null or not i.tags && n.tag)
        and (n.error is null or not exists (select from unnest(n.error) v where pgflow.has_error(i.run, i.error, v)))
        and (n.queue is null or not (
            exists (select from pgflow.jobs j where j.run = i.run and j.queue = any (n.queue))
            or coalesce(i.status = 'failed' and pgflow.failed_queue(i.workflow, i.version, i.error) = any (n.queue), false)))
        and (n.step is null or not (
            exists (select from pgflow.jobs j where j.run = i.run and j.step = any (n.step))
            or coalesce(i.status = 'failed' and i.error ->> 'step' = any (n.step), false)))
        and (n.attempt is null or not (
            exists (select from pgflow.jobs j where j.run = i.run and j.attempt = any (n.attempt))
            or coalesce(i.status = 'failed' and pgflow.failed_attempt(i.error) = any (n.attempt), false)))
        and (n.worker is null or not exists (select from pgflow.jobs j where j.run = i.run and j.worker = any (n.worker)))
        and (n.priority is null or not exists (select from pgflow.jobs j where j.run = i.run and j.priority = any (n.priority)))
    order by  -- planning leaves one term, or the two of instances_by_workflow, as in queries/instance/list.sql
        case when matching_runs.oldest and only_workflow is not null then i.workflow end using ~<~,
        case when only_workflow is not null then i.workflow end using ~>~,
        case when matching_runs.oldest then i.run end,
        i.run desc
    limit matching_runs."limit";
end
$$;

-- Whether an error of an instance, or the last one of a live job, contains a text.
create or replace function pgflow.has_error(run bigint, error jsonb, part text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from (
            select has_error.error as error
            union all select j.errors -> -1 from pgflow.jobs j where j.run = has_error.run and j.errors is not null
        ) e
        where pgflow.contains_error(e.error, has_error.part)
    )
$$;

-- Whether the text "type: reason" of an error contains a text; ASCII letters match in either case, in any locale.
create or replace function pgflow.contains_error(error jsonb, part text) returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select strpos(lower(concat_ws(': ', contains_error.error ->> 'type', contains_error.error ->> 'reason') collate "C"), lower(contains_error.part collate "C")) > 0
$$;

-- Returns the queue of the step with which an instance failed.
create or replace function pgflow.failed_queue(workflow text, version integer, error jsonb) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select d.graph #>> array['steps', failed_queue.error ->> 'step', 'queue'] from pgflow.definitions d
    where d.workflow = failed_queue.workflow and d.version = failed_queue.version
$$;

-- Returns the attempt with which an instance failed, null without one.
create or replace function pgflow.failed_attempt(error jsonb) returns numeric
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select case when jsonb_typeof(failed_attempt.error -> 'attempt') = 'number' then (failed_attempt.error ->> 'attempt')::numeric end $$;

-- Whether a number is one of `any`, and from `min` to `max`, as far as these are given.
create or replace function pgflow.in_range(number numeric, range jsonb) returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(in_range.number >= coalesce((in_range.range ->> 'min')::numeric, in_range.number)
        and in_range.number <= coalesce((in_range.range ->> 'max')::numeric, in_range.number)
        and (not in_range.range ? 'any' or in_range.range -> 'any' @> to_jsonb(in_range.number)), false)
$$;

-- Not granted to PUBLIC: they read tables with the rights of their caller.
revoke all on function pgflow.matching_runs(jsonb, bigint, bigint, boolean, bigint) from public;
revoke all on function pgflow.has_error(bigint, jsonb, text) from public;
revoke all on function pgflow.failed_queue(text, integer, jsonb) from public;
