-- How often a worker was lost while it held the token, apart from the attempts. Written by rescue, and set back where the token moves on.
-- pgflow: no transaction
alter table pgflow.jobs add column if not exists crashes smallint not null default 0;
-- Tokens that may run only alone: as good as none ever are.
drop index concurrently if exists pgflow.jobs_suspects;
create index concurrently jobs_suspects on pgflow.jobs (run_at, id) where state = 'ready' and crashes between 2 and 4;
