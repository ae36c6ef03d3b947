-- How far a running job is and what it keeps for its next attempt; until when a queued one may start; until when an instance may run.
alter table pgflow.jobs
    add column progress jsonb,             -- {"at": 0.4, "note": "..."}; both are reset when the job moves on
    add column checkpoint jsonb,           -- in a job without a step: {step: checkpoint}, for the step that is retried
    add column expires_at timestamptz;     -- null: it does not expire, or has started
alter table pgflow.instances add column deadline timestamptz;  -- null: none
