-- Reads the settings on which pgflow's promises stand. => name, setting
select s.name, current_setting(s.name)
from (values
    ('fsync'), ('full_page_writes'), ('synchronous_commit'), ('autovacuum'), ('track_counts'), ('default_transaction_isolation')
) s (name)
