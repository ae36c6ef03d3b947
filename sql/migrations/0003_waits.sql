-- When each wait began, so that its end can say how long it was. Nobody searches for it: it needs no index, and a move stays in place.
alter table pgflow.jobs add column parked_at timestamptz;  -- null: it does not wait, or began to before this column was there
