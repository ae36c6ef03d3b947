-- Removes the refusals and their triggers.
drop function if exists pgflow.refuse() cascade;
drop table if exists pgflow.refusals;
