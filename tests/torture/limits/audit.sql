-- The schema of the proof: what it saw, and triggers that check the limits after each claim.
create schema audit;
create table audit.violations (what text);
create table audit.starts (queue text, key text, cost integer, at timestamptz, job bigint, worker bigint, clock timestamptz);
create table audit.releases (job bigint, worker bigint, clock timestamptz, was_leased boolean);
create table audit.ended (id bigint);

-- Checks the limits after each statement that starts jobs of a limited queue. The claim holds the gate, so its limits are those of now.
create function audit.check_starts() returns trigger language plpgsql as $$
declare
    gate pgflow.queues;
begin
    insert into audit.starts
    select f.queue, f.key, f.cost, pgflow.now(), f.id, f.worker, clock_timestamp() from fresh f join former o on o.id = f.id
    where f.state = 'running' and o.state <> 'running';
    if not found then
        return null;
    end if;
    for gate in
        select q.* from pgflow.queues q
        where q.is_limited and q.name in (
            select f.queue from fresh f join former o on o.id = f.id where f.state = 'running' and o.state <> 'running')
    loop
        insert into audit.violations
        select format('queue %s: %s of %s', gate.name, x.used, gate.concurrency)
        from (
            select (
                    select coalesce(sum(least(j.cost, gate.concurrency)), 0) from pgflow.jobs j where j.state = 'running' and j.queue = gate.name
                ) + (
                    select coalesce(sum(least(p.cost, gate.concurrency)), 0) from pgflow.places p
                    where p.queue = gate.name and p.expires_at > pgflow.now()
                ) as used
        ) x
        where x.used > gate.concurrency;
        insert into audit.violations
        select format('key %s of %s: %s of %s', x.key, gate.name, x.used, x.most)
        from (
            select k.key, l.most, (
                    select coalesce(sum(least(j.cost, l.most)), 0) from pgflow.jobs j
                    where j.state = 'running' and j.queue = gate.name and j.key = k.key
                ) + (
                    select coalesce(sum(least(p.cost, l.most)), 0) from pgflow.places p
                    where p.queue = gate.name and p.key = k.key and p.expires_at > pgflow.now()
                ) as used
            from (select distinct f.key from fresh f where f.state = 'running' and f.queue = gate.name) k
            cross join lateral (
                select coalesce((
                    select o.concurrency from pgflow.limits o where o.queue = gate.name and o.key = k.key
                ), gate.key_concurrency) as most
            ) l
            where k.key <> '*'
        ) x
        where x.used > x.most;
        insert into audit.violations
        select format('without a key: job %s', j.id) from pgflow.jobs j where j.state = 'running' and j.queue = gate.name and j.key is null;
    end loop;
    return null;
end $$;
create trigger check_starts after update on pgflow.jobs referencing new table as fresh old table as former
for each statement execute function audit.check_starts();

-- Notes when a worker no longer holds a job, and whether it had its lease then.
create function audit.note_release() returns trigger language plpgsql as $$
begin
    insert into audit.releases values (old.id, old.worker, clock_timestamp(), exists (
        select from pgflow.workers w where w.id = old.worker and w.lease_expires_at > pgflow.now()));
    return null;
end $$;
create trigger note_release after update on pgflow.jobs for each row
when (old.state = 'running' and (new.state <> 'running' or new.worker is distinct from old.worker)) execute function audit.note_release();
create trigger note_deleted after delete on pgflow.jobs for each row when (old.state = 'running') execute function audit.note_release();

create function audit.note_end() returns trigger language plpgsql as $$
begin
    insert into audit.ended values (old.id);
    return null;
end $$;
create trigger note_end after delete on pgflow.jobs for each row execute function audit.note_end();
