-- Begins a bulk operation. => operation (id of its audit row)
select pgflow.bulk_begin(%(action)s::text, %(filter)s::jsonb, %(options)s::jsonb, %(text)s::text, %(who)s::text, %(kinds)s::text[]) as operation
