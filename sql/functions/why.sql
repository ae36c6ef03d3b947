-- Returns in words why an instance is where it is: a row for each live branch and for each join that waits for a branch, up to 1,000; for one that
-- has ended, a row with its end. => step ('': the instance), job, kind, reason, since, until (when it continues by itself), queue
-- kind: running | lost | timer | signal | operator | retry | delay | paused | unserved | concurrency | rate | quarantine | queue | join | orphaned |
--     completed | failed | cancelled
create or replace function pgflow.why(run bigint)
returns table (step text, job bigint, kind text, reason text, since timestamptz, until timestamptz, queue text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    i record;
begin
    select x.workflow, x.version, x.status, x.error, x.created_at, x.finished_at into i from pgflow.instances x where x.run = why.run;
    if not found then
        raise exception using errcode = 'PF003', message = format('no instance has the run id %s', coalesce(why.run::text, 'null')),
            hint = format('The newest is %s.', coalesce((select max(x.run)::text from pgflow.instances x), 'none'));
    end if;
    if i.finished_at is not null then
        return query select
            coalesce(i.error ->> 'step', ''), null::bigint, i.status,
            i.status || ' at ' || pgflow.shown_time(i.finished_at) || coalesce(': ' || pgflow.shown_error(i.error), ''),
            i.finished_at, null::timestamptz, null::text;
        return;
    end if;
    return query
    select w.step, w.job, w.kind, w.reason, w.since, w.until, w.queue
    from (select j.id from pgflow.jobs j where j.run = why.run order by j.id limit 1000) j
    cross join lateral pgflow.why_job(j.id) w
    order by w.job;
    if not found then
        return query select
            '', null::bigint, 'orphaned', 'it is active, but no job advances it: a worker repairs that with its next sweep', i.created_at, null::timestamptz, null::text;
        return;
    end if;
    return query
    with recursive edge as materialized (
        select e ->> 'from' as source, e ->> 'event' as event, t.target
        from pgflow.definitions d
        cross join jsonb_array_elements(d.graph -> 'edges') e
        cross join jsonb_array_elements_text(e -> 'targets') t (target)
        where d.workflow = i.workflow and d.version = i.version
    ),
    result as materialized (
        select r.step, r.event, r.targets, r.finished_at, r.applied from pgflow.step_results r where r.run = why.run
    ),
    live (step) as (  -- the active steps, and all that they may still lead to
        select j.step from pgflow.jobs j where j.run = why.run
        union
        select e.target from live l join edge e on e.source = l.step
    ),
    arrived as (
        select e.target, array_agg(distinct e.source order by e.source) as sources, max(r.finished_at) as since
        from result r
        join edge e on e.source = r.step and e.event = r.event and (r.targets is null or e.target = any (r.targets))
        where r.applied
        group by e.target
    ),
    missing as (
        select a.target, a.sources, a.since, array_agg(distinct e.source order by e.source) as steps
        from arrived a
        join edge e on e.target = a.target
        join live l on l.step = e.source
        where not exists (select from result r where r.step = a.target)
            and not exists (select from pgflow.jobs j where j.run = why.run and j.step = a.target)
            and not exists (select from result r where r.step = e.source and r.applied)
        group by a.target, a.sources, a.since
    )
    select
        m.target, null::bigint, 'join',
        format('joins branches: %s arrived, waiting for %s', array_to_string(m.sources, ', '), array_to_string(m.steps, ', ')),
        m.since, null::timestamptz, null::text
    from missing m
    order by m.target limit 1000;
end
$$;

-- The same for one live job, of an instance or a task, and for an execution of a task that has ended.
create or replace function pgflow.why_job(id bigint)
returns table (step text, job bigint, kind text, reason text, since timestamptz, until timestamptz, queue text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := pgflow.now();
    j pgflow.jobs;
    t pgflow.task_results;
    w record;
    signals text[];
begin
    select x.* into j from pgflow.jobs x where x.id = why_job.id;
    if not found then
        select x.* into t from pgflow.task_results x where x.id = why_job.id;
        if not found then
            raise exception using errcode = 'PF017', message = format('no job has the id %s', coalesce(why_job.id::text, 'null')),
                hint = 'List them: pgflow job list, or pgflow jobs for those of workflows.';
        end if;
        return query select
            t.task, t.id, t.status, t.status || ' at ' || pgflow.shown_time(t.finished_at) || coalesce(': ' || pgflow.shown_error(t.error), ''),
            t.finished_at, null::timestamptz, t.queue;
        return;
    end if;
    step := j.step;
    job := j.id;
    queue := j.queue;
    case
        when j.state = 'running' then
            select x.node, x.pid, x.lease_expires_at, pgflow.is_leased(x.lease_expires_at, x.lease) as is_alive into w
            from pgflow.workers x where x.id = j.worker;
            if w.is_alive then
                kind := 'running';
                reason := format('runs on worker %s (%s, process %s)', j.worker, w.node, w.pid)
                    || case when j.attempt > 1 then format(', attempt %s of %s', j.attempt, j.max_attempts) else '' end
                    || coalesce(', ' || round((j.progress ->> 'at')::numeric * 100) || ' %' || coalesce(' ' || nullif(j.progress ->> 'note', ''), ''), '');
            else
                kind := 'lost';
                since := w.lease_expires_at;
                reason := format('ran on worker %s, whose lease has expired%s: another worker that sweeps frees it', j.worker,
                    coalesce(' at ' || pgflow.shown_time(w.lease_expires_at), ''));
            end if;
        when j.state = 'parked' and j.kind in ('execute', 'task') then
            kind := 'operator';
            since := j.parked_at;
            reason := format('waits for an operator, after attempt %s of %s: %s', j.attempt, j.max_attempts, pgflow.shown_error(j.errors -> -1));
        when j.state = 'parked' and (j.run_at is null or j.run_at > moment) then
            signals := array(select k from jsonb_object_keys(coalesce(j.awaits, '{}')) k order by k);
            since := j.parked_at;
            until := j.run_at;
            if j.run_at is not null and signals <@ '{timeout}' then
                kind := 'timer';
                reason := 'timer until ' || pgflow.shown_time(j.run_at);
            else
                kind := 'signal';
                reason := 'waits for signal ' || array_to_string(signals, ' or ')
                    || coalesce(' until ' || pgflow.shown_time(j.run_at), '')
                    || coalesce(', which is scheduled for ' || pgflow.shown_time((
                        select min(l.due_at) from pgflow.scheduled_signals l where l.run = j.run and l.step = j.step and l.name = any (signals)
                    )), '');
            end if;
        when j.state = 'scheduled' and j.run_at > moment then
            until := j.run_at;
            if jsonb_array_length(coalesce(j.errors, '[]')) > 0 then
                kind := 'retry';
                reason := format('retry at %s, after attempt %s of %s: %s', pgflow.shown_time(j.run_at), j.attempt, j.max_attempts, pgflow.shown_error(j.errors -> -1));
            else
                kind := 'delay';
                reason := 'scheduled for ' || pgflow.shown_time(j.run_at);
            end if;
        else
            since := j.run_at;
            select x.kind, x.reason, x.until into kind, reason, until from pgflow.why_ready(j.id) x;
    end case;
    return next;
end
$$;

-- Returns why a job that is ready or due has not been claimed. => kind, reason, until
create or replace function pgflow.why_ready(job bigint) returns table (kind text, reason text, until timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    moment constant timestamptz := pgflow.now();
    j pgflow.jobs;
    gate pgflow.queues;
    workers bigint;
    pauses text;
    own text;                   -- its partition key
    most integer;
    used bigint;
    tat timestamptz;
    earlier bigint;
begin
    select x.* into j from pgflow.jobs x where x.id = why_ready.job;
    own := coalesce(j.key, '*');
    select q.* into gate from pgflow.queues q where q.name = j.queue;
    if gate.paused_at is not null then
        kind := 'paused';
        reason := format('queue %s is paused since %s by %s', j.queue, pgflow.shown_time(gate.paused_at), gate.paused_by);
        return next;
        return;
    end if;
    select
        count(*),
        case when count(*) = count(n.paused_at) then
            string_agg(distinct format('%s since %s by %s', n.node, pgflow.shown_time(n.paused_at), n.paused_by), ', ') end
    into workers, pauses
    from pgflow.workers w left join pgflow.node_queues n on n.node = w.node and n.queue = j.queue
    where pgflow.is_leased(w.lease_expires_at, w.lease) and j.queue = any (w.queues);
    if workers = 0 then
        kind := 'unserved';
        reason := case when exists (select from pgflow.workers w where pgflow.is_leased(w.lease_expires_at, w.lease))
            then format('no worker serves queue %s: start one with --queue %s', j.queue, j.queue)
            else format('no worker is running: start one that serves queue %s', j.queue) end;
        return next;
        return;
    end if;
    if pauses is not null then
        kind := 'paused';
        reason := format('queue %s is paused on each node that serves it: %s', j.queue, pauses);
        return next;
        return;
    end if;
    if j.crashes between 2 and 4 then
        kind := 'quarantine';
        reason := format('%s workers were lost while it ran: the next worker runs it alone, when it holds no other job', j.crashes);
        return next;
        return;
    end if;

    if gate.concurrency is not null then
        used := (
            select coalesce(sum(x.cost), 0) from pgflow.jobs x where x.state = 'running' and x.queue = j.queue and x.key is not null
        ) + (select coalesce(sum(p.cost), 0) from pgflow.places p where p.queue = j.queue and p.expires_at > moment);
        if used + least(j.cost, gate.concurrency) > gate.concurrency then
            kind := 'concurrency';
            reason := format('the limit of queue %s is reached: %s of %s places are taken', j.queue, used, gate.concurrency);
            return next;
            return;
        end if;
    end if;
    most := coalesce(
        (select l.concurrency from pgflow.limits l where l.queue = j.queue and l.key = own),
        case when own <> '*' then gate.key_concurrency end);
    if most is not null then
        used := (
            select coalesce(sum(x.cost), 0) from pgflow.jobs x where x.state = 'running' and x.queue = j.queue and x.key = own
        ) + (select coalesce(sum(p.cost), 0) from pgflow.places p where p.queue = j.queue and p.key = own and p.expires_at > moment);
        if used + least(j.cost, most) > most then
            kind := 'concurrency';
            reason := format('the limit of key %s in queue %s is reached: %s of %s places are taken', own, j.queue, used, most);
            return next;
            return;
        end if;
    end if;
    if gate.rate is not null and pgflow.allowed_starts(gate.tat, gate.rate, gate.burst, moment) < least(j.cost, gate.burst) then
        kind := 'rate';
        until := gate.tat - make_interval(secs => (gate.burst - least(j.cost, gate.burst)) / gate.rate);
        reason := format('the rate of queue %s is used up: the next start is at %s', j.queue, pgflow.shown_time(until));
        return next;
        return;
    end if;
    if gate.key_rate is not null and own <> '*' then
        tat := (select r.tat from pgflow.rates r where r.queue = j.queue and r.key = own);
        if pgflow.allowed_starts(tat, gate.key_rate, gate.key_burst, moment) < least(j.cost, gate.key_burst) then
            kind := 'rate';
            until := tat - make_interval(secs => (gate.key_burst - least(j.cost, gate.key_burst)) / gate.key_rate);
            reason := format('the rate of key %s in queue %s is used up: the next start is at %s', own, j.queue, pgflow.shown_time(until));
            return next;
            return;
        end if;
    end if;

    kind := 'queue';
    if j.state <> 'ready' then
        reason := format('due since %s: a worker makes it ready within a second', pgflow.shown_time(j.run_at));
        return next;
        return;
    end if;
    if j.key is null then
        earlier := (
            select count(*) from (
                select from pgflow.jobs x
                where x.state = 'ready' and x.key is null and x.queue = j.queue and (x.priority, x.run_at, x.id) < (j.priority, j.run_at, j.id)
                order by x.priority, x.run_at, x.id limit 101
            ) c
        );
    else
        earlier := (
            select count(*) from (
                select from pgflow.jobs x
                where x.state = 'ready' and x.queue = j.queue and x.key = j.key and (x.priority, x.run_at, x.id) < (j.priority, j.run_at, j.id)
                order by x.priority, x.run_at, x.id limit 101
            ) c
        );
    end if;
    reason := format('ready: %s in queue %s%s, which %s', case
            when earlier = 0 then 'the next'
            when earlier > 100 then 'more than 100 jobs are before it'
            when earlier = 1 then '1 job is before it'
            else earlier || ' jobs are before it' end,
        j.queue, case when j.key is not null then ' with key ' || j.key else '' end,
        case when workers = 1 then '1 worker serves' else workers || ' workers serve' end);
    return next;
end
$$;

-- Returns a time for people: in UTC, to the second.
create or replace function pgflow.shown_time(at timestamptz) returns text
language sql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$ select case when isfinite(shown_time.at) then to_char(shown_time.at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"') else shown_time.at::text end $$;

-- Returns an error in one line for people, at most 500 characters: "ValueError: no mail". Null for a null error.
create or replace function pgflow.shown_error(error jsonb) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select left(regexp_replace(
        concat_ws(': ', nullif(shown_error.error ->> 'type', 'Error'), coalesce(shown_error.error ->> 'reason', 'no reason given')),
        '[[:space:]]+', ' ', 'g'), 500)
    where shown_error.error is not null
$$;

-- Not granted to PUBLIC. `why_ready` is not for callers.
revoke all on function pgflow.why(bigint) from public;
revoke all on function pgflow.why_job(bigint) from public;
revoke all on function pgflow.why_ready(bigint) from public;
