-- Counts a page of the instances, or for `kind` "task" of the tasks, that match a filter, by status.
-- => {"states": {"failed": 3}, "last": the last run or id, null: this was the last page}
create or replace function pgflow.bulk_count(filter jsonb, after bigint default 0, "limit" integer default 10000, kind text default 'workflow') returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if bulk_count."limit" < 1 then
        raise exception using errcode = 'PF008', message = format('limit must be at least 1, got %s', bulk_count."limit");
    end if;
    if bulk_count.kind = 'task' then
        return (
            with page as materialized (
                select m as id from pgflow.matching_tasks(bulk_count.filter, bulk_count.after, null, true, bulk_count."limit") m
            ),
            counted as (
                select s.status, count(*) as n from page p cross join lateral (select t.status from pgflow.task_status(p.id, null) t) s group by s.status
            )
            select jsonb_build_object(
                'states', coalesce((select jsonb_object_agg(c.status, c.n) from counted c), '{}'),
                'last', (select max(p.id) from page p having count(*) >= bulk_count."limit"))
        );
    end if;
    return (
        with page as materialized (
            select m as run from pgflow.matching_runs(bulk_count.filter, bulk_count.after, null, true, bulk_count."limit") m
        ),
        counted as (
            select i.status, count(*) as n from page p join pgflow.instances i on i.run = any (array[p.run]) group by i.status
        )
        select jsonb_build_object(
            'states', coalesce((select jsonb_object_agg(c.status, c.n) from counted c), '{}'),
            'last', (select max(p.run) from page p having count(*) >= bulk_count."limit"))
    );
end
$$;

-- Begins a bulk operation, and returns the number of its audit row, which keeps its position. `bulk_batch` works it off, batch by batch.
-- It covers the instances, and with `kinds` the tasks, that exist now and match `filter` when their turn comes. `options`: {"reason": ...} of a cancel, {"queue": ...} of a move,
-- {"priority": ...} of a reprioritise, {"at": ...} of a reschedule. `text` is the filter as it was written.
create or replace function pgflow.bulk_begin(
    action text, filter jsonb, options jsonb default '{}', text text default null, who text default null, kinds text[] default '{workflow}'
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    needed text := case bulk_begin.action when 'move' then 'queue' when 'reprioritise' then 'priority' when 'reschedule' then 'at' end;
    bad text;
    operation bigint;
begin
    bad := case
        when bulk_begin.action is null or bulk_begin.action <> all ('{retry,cancel,move,reprioritise,reschedule,delete}') then format('there is no bulk action %L', bulk_begin.action)
        when coalesce(bulk_begin.filter, '{}') = '{}' then 'a bulk operation needs a filter'
        when exists (select from jsonb_object_keys(bulk_begin.options) k where k <> coalesce(needed, '') and (k <> 'reason' or bulk_begin.action <> 'cancel'))
            then format('%s does not take these options: %s', bulk_begin.action, bulk_begin.options)
        when needed is not null and bulk_begin.options -> needed is null then format('%s needs %s', bulk_begin.action, needed)
        when bulk_begin.options ->> 'queue' !~ '^[A-Za-z0-9_.-]{1,63}$' then format('the queue %L is not a valid name', bulk_begin.options ->> 'queue')
        when (bulk_begin.options ->> 'priority')::numeric not between -32768 and 32767 then format('the priority %s is out of range', bulk_begin.options ->> 'priority')
        when bulk_begin.kinds is null or cardinality(bulk_begin.kinds) = 0 or not bulk_begin.kinds <@ '{workflow,task}' then 'the kinds must be of workflow and task'
        when not isfinite((bulk_begin.options ->> 'at')::timestamptz) then 'the time is infinite'
    end;
    if bad is not null then
        raise exception using errcode = 'PF008', message = bad, hint = 'Actions: retry, cancel, move (queue), reprioritise (priority), reschedule (at), delete.';
    end if;
    if 'workflow' = any (bulk_begin.kinds) then  -- refuses an unknown key
        perform from pgflow.matching_runs(bulk_begin.filter, null, null, true, 1);
    end if;
    if 'task' = any (bulk_begin.kinds) then
        perform from pgflow.matching_tasks(bulk_begin.filter, null, null, true, 1);
    end if;
    operation := pgflow.audit('bulk ' || bulk_begin.action, jsonb_build_object(
        'filter', bulk_begin.text, 'document', bulk_begin.filter, 'options', bulk_begin.options, 'kinds', bulk_begin.kinds, 'after', 0,
        'until', jsonb_build_object('workflow', (select coalesce(max(i.run), 0) from pgflow.instances i), 'task', (
            select coalesce(greatest(max(m.id), (select max(r.id) from pgflow.task_results r)), 0) from (select j.id from pgflow.jobs j order by j.id desc limit 1) m)), 'matched', 0, 'changed', 0, 'skipped', 0, 'finished_at', null), bulk_begin.who);
    perform pgflow.answer(to_jsonb(operation));
    return operation;
end
$$;

-- Works off one batch of a bulk operation in the caller's transaction, and moves its position. So a call whose answer was lost is simply
-- repeated, and an operation that was interrupted continues where it stopped.
-- => {"action", "matched", "changed", "finished", "skipped": [{"run", "id", "reason"}, ...] of this batch, "total": {"matched", "changed", "skipped"}}
-- Locks: the audit row, then the instances of the batch in the order of all functions. A locked instance is skipped, not waited for.
create or replace function pgflow.bulk_batch(operation bigint, "limit" integer default 500, notify boolean default true) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    verb text;
    state jsonb;
    runs bigint[] := '{}';
    skipped jsonb := '[]';
    queues text[] := '{}';
    is_last boolean;
    kind text;
    what text;
    until bigint;
    queue text;
begin
    if bulk_batch."limit" < 1 then
        raise exception using errcode = 'PF008', message = format('limit must be at least 1, got %s', bulk_batch."limit");
    end if;
    select substr(a.action, 6), a.details into verb, state from pgflow.audit a
    where a.id = bulk_batch.operation and a.action like 'bulk %' for no key update;
    if not found then
        raise exception using errcode = 'PF003', message = format('there is no bulk operation %s', bulk_batch.operation), hint = 'List them: pgflow audit list';
    end if;
    if state -> 'finished_at' = 'null' then
        kind := state #>> '{kinds,0}';
        until := (state -> 'until' ->> kind)::bigint + 1;
        if kind = 'task' then
            runs := array(select m from pgflow.matching_tasks(state -> 'document', (state ->> 'after')::bigint, until, true, bulk_batch."limit") m);
        else
            runs := array(select m from pgflow.matching_runs(state -> 'document', (state ->> 'after')::bigint, until, true, bulk_batch."limit") m);
        end if;
        is_last := cardinality(runs) < bulk_batch."limit";
        what := case kind when 'task' then 'task ' else '' end || verb;
        case what
            when 'task retry' then select r.skipped, r.queues into skipped, queues from pgflow.retry_jobs(runs) r;
            when 'task cancel' then skipped := pgflow.cancel_jobs(runs, state #>> '{options,reason}');
            when 'task delete' then skipped := pgflow.delete_results(runs);
            when 'task move', 'task reprioritise', 'task reschedule' then select r.skipped, r.queues into skipped, queues from pgflow.change_tasks(
                runs, state #>> '{options,queue}', (state #>> '{options,priority}')::smallint, (state #>> '{options,at}')::timestamptz) r;
            when 'retry' then select r.skipped, r.queues into skipped, queues from pgflow.retry_runs(runs) r;
            when 'cancel' then skipped := pgflow.cancel_runs(runs, state #>> '{options,reason}');
            when 'delete' then skipped := pgflow.delete_runs(runs);
            else select r.skipped, r.queues into skipped, queues from pgflow.change_jobs(
                runs, state #>> '{options,queue}', (state #>> '{options,priority}')::smallint, (state #>> '{options,at}')::timestamptz) r;
        end case;
        state := state || jsonb_build_object(
            -- The tasks follow the instances.
            'after', case when is_last then 0 else runs[cardinality(runs)] end,
            'kinds', case when is_last then (state -> 'kinds') - 0 else state -> 'kinds' end,
            'matched', (state ->> 'matched')::bigint + cardinality(runs),
            'changed', (state ->> 'changed')::bigint + cardinality(runs) - jsonb_array_length(skipped),
            'skipped', (state ->> 'skipped')::bigint + jsonb_array_length(skipped),
            'finished_at', case when is_last and jsonb_array_length(state -> 'kinds') = 1 then to_jsonb(pgflow.now()) end);
        update pgflow.audit a set details = state where a.id = bulk_batch.operation;
    end if;
    if notify and cardinality(runs) > jsonb_array_length(skipped) then
        if verb in ('cancel', 'delete') then
            perform pg_notify(pgflow.channel(), '');  -- no queue: each worker checks whether its leases were revoked
        end if;
        foreach queue in array queues loop
            perform pg_notify(pgflow.channel(), queue);
        end loop;
    end if;
    return jsonb_build_object(
        'action', verb, 'matched', cardinality(runs), 'changed', cardinality(runs) - jsonb_array_length(skipped), 'skipped', skipped,
        'finished', state -> 'finished_at' <> 'null',
        'total', jsonb_build_object('matched', state -> 'matched', 'changed', state -> 'changed', 'skipped', state -> 'skipped'));
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.bulk_count(jsonb, bigint, integer, text) from public;
revoke all on function pgflow.bulk_begin(text, jsonb, jsonb, text, text, text[]) from public;
revoke all on function pgflow.bulk_batch(bigint, integer, boolean) from public;
