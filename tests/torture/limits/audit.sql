-- The schema of the proof: what it saw, and a trigger that checks the limits after each claim.
create schema audit;
create table audit.violations (what text);
create table audit.starts (key text, cost integer, at timestamptz);
create table audit.ended (id bigint);

-- Checks the limits after each statement that starts jobs of queue 'q'. The claim holds the gate, so its limits are those of now.
create function audit.check_starts() returns trigger language plpgsql as $$
declare
    gate pgflow.queues;
begin
    if not exists (select from fresh f join former o on o.id = f.id where f.state = 'running' and o.state <> 'running' and f.queue = 'q') then
        return null;
    end if;
    select * into gate from pgflow.queues where name = 'q';
    insert into audit.violations
    select format('queue: %s of %s', x.used, gate.concurrency)
    from (
        select (select coalesce(sum(least(cost, gate.concurrency)), 0) from pgflow.jobs where state = 'running' and queue = 'q')
            + (select coalesce(sum(least(cost, gate.concurrency)), 0) from pgflow.places where queue = 'q' and expires_at > pgflow.now()) as used
    ) x
    where x.used > gate.concurrency;
    insert into audit.violations
    select format('key %s: %s of %s', x.key, x.used, x.most)
    from (
        select k.key, l.most, (
                select coalesce(sum(least(j.cost, l.most)), 0) from pgflow.jobs j where j.state = 'running' and j.queue = 'q' and j.key = k.key
            ) + (
                select coalesce(sum(least(p.cost, l.most)), 0) from pgflow.places p where p.queue = 'q' and p.key = k.key and p.expires_at > pgflow.now()
            ) as used
        from (select distinct f.key from fresh f where f.state = 'running' and f.queue = 'q') k
        cross join lateral (
            select coalesce((select o.concurrency from pgflow.limits o where o.queue = 'q' and o.key = k.key), gate.key_concurrency) as most
        ) l
        where k.key <> '*'
    ) x
    where x.used > x.most;
    insert into audit.violations select 'without a key: job ' || j.id from pgflow.jobs j where j.state = 'running' and j.queue = 'q' and j.key is null;
    insert into audit.starts
    select f.key, f.cost, pgflow.now() from fresh f join former o on o.id = f.id
    where f.state = 'running' and o.state <> 'running' and f.queue = 'q';
    return null;
end $$;
create trigger check_starts after update on pgflow.jobs referencing new table as fresh old table as former
for each statement execute function audit.check_starts();

create function audit.note_end() returns trigger language plpgsql as $$
begin
    insert into audit.ended values (old.id);
    return null;
end $$;
create trigger note_end after delete on pgflow.jobs for each row execute function audit.note_end();
