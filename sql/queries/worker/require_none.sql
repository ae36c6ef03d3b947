-- Raises an error while a worker is alive: for a script whose next migration breaks the code of older workers. => nothing
do $$ begin
    if exists (select from pgflow.workers w where w.lease_expires_at > pgflow.now()) then
        raise exception 'workers are alive whose code the next migration would break' using hint = 'Stop them, and run the script again.';
    end if;
end $$
