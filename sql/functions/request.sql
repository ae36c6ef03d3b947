-- Whether a transaction with this idempotency key is the first one: it goes on then, and the calls that follow in it note what they came to.
-- Of two at once the second waits for the first, and goes on in its place if that is rolled back.
--     begin; select pgflow.once('order-4711'); -- false: it has been done
create or replace function pgflow.once(key text, call text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if once.key is null or length(once.key) not between 1 and 200 then
        raise exception using errcode = 'PF008', message = format('%L cannot be an idempotency key', left(once.key, 50)),
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

-- The same for who sends what follows along with it: where it has been done already, nothing of that is to happen.
create or replace function pgflow.begin_request(key text, call text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not pgflow.once(begin_request.key, begin_request.call) then
        raise exception using errcode = 'PF013', message = format('what has the idempotency key %L has been done', begin_request.key),
            hint = 'Ask for what came of it: select pgflow.answered(key, call)';
    end if;
end
$$;

-- What the calls with this key came to, in order; null: there were none. Refuses a key that was used for another call.
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
            message = format('the idempotency key %L was used for something else: %s', answered.key, coalesce(earlier.call, 'a transaction of SQL''s own')),
            hint = 'Take a key of its own for each call.';
    end if;
    return earlier.answer;
end
$$;

-- Notes what a call came to, if the transaction has a key. The setting alone gives no right to another's row.
create or replace function pgflow.answer(given jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
    asked text := nullif(current_setting('pgflow_once.key', true), '');
begin
    if asked is not null then
        update pgflow.requests r set answer = coalesce(r.answer, '[]') || jsonb_build_array(coalesce(answer.given, 'null'))
        where r.key = asked and r.xact = pg_current_xact_id();
    end if;
end
$$;

-- Nobody has it by default: it needs no rights on tables, only EXECUTE, and USAGE on the schema.
revoke all on function pgflow.once(text, text) from public;
revoke all on function pgflow.begin_request(text, text) from public;
revoke all on function pgflow.answered(text, text) from public;
revoke all on function pgflow.answer(jsonb) from public;
