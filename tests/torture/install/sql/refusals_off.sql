-- Takes the refusals out of a test install again, triggers and all.
drop function if exists pgflow.refuse() cascade;
drop table if exists pgflow.refusals;
