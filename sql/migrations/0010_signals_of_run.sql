-- All signals of a run by an index, the consumed ones too: they go with their instance. And to consume one changes no index any more.
-- pgflow: no transaction
drop index concurrently if exists pgflow.signals_of_run;
create index concurrently signals_of_run on pgflow.signals (run, id);
drop index concurrently if exists pgflow.signals_kept;
