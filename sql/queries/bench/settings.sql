-- Reads the server's version and the settings that affect speed. => name, setting
select s.name, current_setting(s.name)
from (values
    ('server_version'), ('shared_buffers'), ('fsync'), ('synchronous_commit'), ('full_page_writes'), ('wal_level'), ('wal_compression'),
    ('max_wal_size'), ('checkpoint_timeout'), ('autovacuum')
) s (name)
