-- Active instances by run, so that those without a token are found a page at a time, however many have ended. It holds active rows only.
create index instances_active on pgflow.instances (run) where status in ('pending', 'running', 'waiting');
