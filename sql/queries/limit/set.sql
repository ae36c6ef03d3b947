-- Sets limits of a queue or of one partition key; null leaves one as it is. => nothing
select pgflow.set_limit(
    %(queue)s::text, %(concurrency)s::integer, %(key_concurrency)s::integer, %(rate)s::double precision, %(burst)s::integer,
    %(key_rate)s::double precision, %(key_burst)s::integer, %(key)s::text, %(weight)s::integer, %(is_new)s::boolean
)
