-- Which server process a worker's transactions run in, so that one that stands still can be ended with the locks it holds.
alter table pgflow.workers add column backend integer, add column attached_at timestamptz;  -- null: an older worker, which is left alone
