-- Settings of queues that apps declare in code. The columns of a queue hold what is in force; these two, where it comes from.
alter table pgflow.queues
    add column declared jsonb,                          -- the settings in code; null: the queue is not declared
    add column overridden text[] not null default '{}'; -- the settings that were set at run time: a declaration does not change them
