-- How long each worker's lease is, so that one that lies further ahead is known for what a clock that went back has left; and which process it is.
alter table pgflow.workers
    add column lease interval,     -- null: an older worker, whose lease is taken as it stands
    add column nonce text;         -- null likewise; after a restore or a failover the same id may come a second time
