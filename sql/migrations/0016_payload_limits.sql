-- Inputs, payloads and outputs of up to 16 MiB as a program writes them: at most 64 MiB as PostgreSQL writes them. Not checked against existing
-- rows yet: 0017 does that without a long lock.
alter table pgflow.instances
    drop constraint instances_input_limit,
    add constraint instances_input_limit check (octet_length(input::text) <= 67108864) not valid;
alter table pgflow.step_results
    drop constraint step_results_output_limit,
    add constraint step_results_output_limit check (octet_length(output::text) <= 67108864) not valid;
alter table pgflow.signals
    drop constraint signals_payload_limit,
    add constraint signals_payload_limit check (octet_length(payload::text) <= 67108864) not valid;
alter table pgflow.scheduled_signals
    drop constraint scheduled_signals_payload_limit,
    add constraint scheduled_signals_payload_limit check (octet_length(payload::text) <= 67108864) not valid;
