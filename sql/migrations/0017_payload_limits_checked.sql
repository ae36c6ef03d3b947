-- Checks existing rows against the limits of 0016, a table at a time: each may be read and written meanwhile.
-- pgflow: no transaction
alter table pgflow.instances validate constraint instances_input_limit;
alter table pgflow.step_results validate constraint step_results_output_limit;
alter table pgflow.signals validate constraint signals_payload_limit;
alter table pgflow.scheduled_signals validate constraint scheduled_signals_payload_limit;
