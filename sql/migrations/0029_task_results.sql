-- What a task that has ended needs to run once more as it was: its partition key, its places and its checkpoint.
alter table pgflow.task_results
    add column key text collate "C",
    add column cost smallint,                           -- null: 1
    add column checkpoint jsonb;
