-- Returns whether a lease is still valid. One that expires later than any lease granted now was granted before the server's clock went back.
-- It counts as expired: its worker may be dead. If the worker is alive, its next heartbeat reports the loss, and fencing rejects its writes.
create or replace function pgflow.is_leased(expires_at timestamptz, lease interval) returns boolean
language sql stable parallel safe
as $$ select expires_at > pgflow.now() and (lease is null or expires_at <= pgflow.now() + 2 * lease) $$;
