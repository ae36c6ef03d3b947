-- Ends what has run out of time, at most `most` of each: an instance whose first job was not started in time is cancelled with the reason "expired",
-- one past its deadline fails. Returns each instance that ended. Instances and jobs that another session has locked are left to the next call.
create or replace function pgflow.end_expired(most integer)
returns table (run bigint, id text, workflow text, version integer, status text, reason text, age double precision)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    due record;
begin
    for due in
        select j.id as job, j.run, j.step, j.enqueued_at
        from pgflow.jobs j
        where j.expires_at <= pgflow.now() and nullif(j.state in ('ready', 'scheduled') and j.attempt = 0, false) is not null
        order by j.expires_at, j.id
        limit most
    loop
        if due.run is null then  -- a task
            perform from pgflow.jobs j
            where j.id = due.job and j.expires_at <= pgflow.now() and j.state in ('ready', 'scheduled') and j.attempt = 0 for update skip locked;
            continue when not found;
            perform pgflow.end_tasks(array[due.job], 'cancelled', null, '{"reason": "expired"}', true);
            run := null;
            id := 'job ' || due.job;
            workflow := due.step;
            version := null;
            status := 'cancelled';
            reason := 'expired';
            age := extract(epoch from pgflow.now() - due.enqueued_at);
            return next;
            continue;
        end if;
        -- The instance before the job, as in the lock order. A claim that came first has made the job running.
        select i.run, i.id, i.workflow, i.version, 'cancelled', 'expired', extract(epoch from pgflow.now() - i.created_at)
        into run, id, workflow, version, status, reason, age
        from pgflow.instances i where i.run = due.run and i.status in ('pending', 'running', 'waiting') for no key update skip locked;
        continue when not found;
        perform from pgflow.jobs j
        where j.id = due.job and j.expires_at <= pgflow.now() and j.state in ('ready', 'scheduled') and j.attempt = 0 for update skip locked;
        continue when not found;
        perform pgflow.end_instance(run, status, jsonb_build_object('reason', reason));
        return next;
    end loop;

    for due in
        select i.run, i.id, i.workflow, i.version, i.deadline, i.created_at
        from pgflow.instances i
        where i.deadline <= pgflow.now() and i.status in ('pending', 'running', 'waiting')
        order by i.deadline, i.run
        limit most
        for no key update skip locked
    loop
        run := due.run;
        id := due.id;
        workflow := due.workflow;
        version := due.version;
        status := 'failed';
        reason := format('the deadline has passed, %s', to_json(due.deadline) #>> '{}');
        age := extract(epoch from pgflow.now() - due.created_at);
        perform pgflow.end_instance(run, status, jsonb_build_object('reason', reason, 'type', 'DeadlineExceeded'));
        return next;
    end loop;
end
$$;

-- Not granted to PUBLIC: workers call it.
revoke all on function pgflow.end_expired(integer) from public;
