-- What may be stored at most, whoever writes it. Not checked yet against what is there: that takes long, and 0012 does it without a long lock.
-- 48 times what Python takes: PostgreSQL writes a JSON text out to up to 47 times its length (5e-324), and 0.1 % of such a text can be a
-- hundred megabytes (1e131000). The functions refuse far less, and with a reason.
alter table pgflow.instances
    add constraint instances_input_limit check (octet_length(input::text) <= 3145728) not valid,
    add constraint instances_metadata_limit check (octet_length(metadata::text) <= 50331648) not valid,  -- of all its steps together
    add constraint instances_tags_limit check (  -- 32 tags of 64 characters; no longer run but of several, and no more of them than that
        cardinality(tags) <= 32 and (length(array_to_string(tags, '')) <= 64
            or length(array_to_string(tags, '')) <= 2048 and array_to_string(tags, E'\n') !~ '[^\n]{65}')
    ) not valid;
alter table pgflow.step_results
    add constraint step_results_output_limit check (octet_length(output::text) <= 50331648) not valid,
    add constraint step_results_metadata_limit check (octet_length(metadata::text) <= 3145728) not valid;
alter table pgflow.jobs add constraint jobs_config_limit check (octet_length(config::text) <= 3145728) not valid;
alter table pgflow.signals add constraint signals_payload_limit check (octet_length(payload::text) <= 3145728) not valid;
alter table pgflow.scheduled_signals
    add constraint scheduled_signals_payload_limit check (octet_length(payload::text) <= 3145728) not valid;
