-- Returns the partition key in a document (an input, or the arguments of a task) at a path: the string, number or boolean there, null if there is
-- none. `pgflow.core.definition.partition` has the same rules, for documents that are encrypted or stored elsewhere.
-- A job without a partition key has the key null, in every queue. '*' is reserved: claim_limited gives it to such jobs while they run.
create or replace function pgflow.partition_key(document jsonb, path text[]) returns text
language sql immutable parallel safe
as $$
    select case
        when k.value = '' then null
        when k.value = '*' then '"*"'
        when octet_length(k.value) > 200 then left(k.value, 40) || ' ' || md5(k.value)  -- an index entry has a limited size
        else k.value
    end
    from (select case when cardinality(path) > 0 and jsonb_typeof(document #> path) not in ('object', 'array') then document #>> path end) k (value)
$$;

-- Returns the partition key of an instance's jobs, by the graph of its workflow; null without one.
create or replace function pgflow.job_key(graph jsonb, input jsonb) returns text
language sql immutable parallel safe
as $$ select case when graph ? 'partition_by' then pgflow.partition_key(input, array(select jsonb_array_elements_text(graph -> 'partition_by'))) end $$;
