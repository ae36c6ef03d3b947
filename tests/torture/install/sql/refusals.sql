-- For test installs only: lets writes to the engine's tables fail at random, with errors that require a retry.
create table if not exists pgflow.refusals (
    one boolean primary key default true check (one),
    chance double precision not null default 0 check (chance between 0 and 1)       -- of each statement
);
insert into pgflow.refusals default values on conflict do nothing;

-- Per statement, not per row: a large batch fails as often as a small one.
create or replace function pgflow.refuse() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    code text;
begin
    if random() < (select r.chance from pgflow.refusals r) then
        -- serialization_failure, deadlock_detected, lock_not_available
        code := (array['40001', '40P01', '55P03'])[1 + floor(3 * random())::integer];
        raise exception 'refused by the test install, as a % of % with %', lower(tg_op), tg_table_name, code using errcode = code;
    end if;
    return null;
end $$;
revoke all on function pgflow.refuse() from public;

create or replace trigger refuse before insert or update or delete on pgflow.instances for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.step_results for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.jobs for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.signals for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.scheduled_signals for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.business_ids for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.workers for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.requests for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.definitions for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.task_results for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.tasks for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.schedules for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.waiters for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.audit for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.rates for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.places for each statement execute function pgflow.refuse();
create or replace trigger refuse before insert or update or delete on pgflow.stale_payloads for each statement execute function pgflow.refuse();
