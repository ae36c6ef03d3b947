-- Whether a lease runs. One that would end later than any that is given now was given before the server's clock went back: it counts as ended, for
-- whoever holds it may be dead; if not, its next heartbeat finds that out, and the fence keeps everything else right.
create or replace function pgflow.is_leased(expires_at timestamptz, lease interval) returns boolean
language sql stable parallel safe
as $$ select expires_at > pgflow.now() and (lease is null or expires_at <= pgflow.now() + 2 * lease) $$;
