-- Reads the settings that durability and vacuum depend on, and those that control logging. => name, setting
select s.name, current_setting(s.name)
from (values
    ('fsync'), ('full_page_writes'), ('synchronous_commit'), ('autovacuum'), ('track_counts'), ('default_transaction_isolation'),
    ('log_statement'), ('log_min_duration_statement'), ('log_min_duration_sample'), ('log_parameter_max_length'), ('log_parameter_max_length_on_error')
) s (name)
