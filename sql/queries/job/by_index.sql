-- Has the statements that follow in this transaction find each row by an index, as on a worker's own connection, whatever the table was like when they were planned. => nothing to read
select set_config('enable_seqscan', 'off', true)
