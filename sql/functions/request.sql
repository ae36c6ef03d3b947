-- Returns whether this idempotency key is new, and claims it: the calls that follow in the transaction record their answers under it.
-- Of two concurrent transactions the second waits for the first, and gets true if the first rolls back.
--     begin; select pgflow.once('order-4711'); -- false: already done
create or replace function pgflow.once(key text, call text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if once.key is null or length(once.key) not between 1 and 200 then
        raise exception using errcode = 'PF008', message = format('%L is not a valid idempotency key', left(once.key, 50)),
            hint = 'A key has 1 to 200 characters.';
    end if;
    insert into pgflow.requests (key, call) values (once.key, once.call) on conflict do nothing;
    if not found then
        return false;
    end if;
    perform set_config('pgflow_once.key', once.key, true);
    return true;
end
$$;

-- Claims a key like `once`, but raises PF013 if it was already used, so that statements pipelined behind it are not executed.
create or replace function pgflow.begin_request(key text, call text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not pgflow.once(begin_request.key, begin_request.call) then
        raise exception using errcode = 'PF013', message = format('the idempotency key %L was already used', begin_request.key),
            hint = 'Read the answers of its calls: select pgflow.answered(key, call)';
    end if;
end
$$;

-- Returns the answers of the calls under this key, in order; null when the key is new. Raises PF014 if the key was used for another call.
create or replace function pgflow.answered(key text, call text default null) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    earlier record;
begin
    select r.call, coalesce(r.answer, '[]') as answer into earlier from pgflow.requests r where r.key = answered.key;
    if answered.call is not null and earlier.call is distinct from answered.call and earlier.answer is not null then
        raise exception using errcode = 'PF014',
            message = format('the idempotency key %L was used for another call: %s', answered.key, coalesce(earlier.call, 'pgflow.once in SQL')),
            hint = 'Use a different key for each call.';
    end if;
    return earlier.answer;
end
$$;

-- Records the answer of a call if the transaction has claimed a key. The setting alone does not suffice: the row must be of this transaction.
create or replace function pgflow.answer(given jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    claimed text := nullif(current_setting('pgflow_once.key', true), '');
begin
    if claimed is not null then
        update pgflow.requests r set answer = coalesce(r.answer, '[]') || jsonb_build_array(coalesce(answer.given, 'null'))
        where r.key = claimed and r.xact = pg_current_xact_id();
    end if;
end
$$;

-- Not granted to PUBLIC. A caller needs EXECUTE, USAGE on the schema, and no rights on tables.
revoke all on function pgflow.once(text, text) from public;
revoke all on function pgflow.begin_request(text, text) from public;
revoke all on function pgflow.answered(text, text) from public;
revoke all on function pgflow.answer(jsonb) from public;
