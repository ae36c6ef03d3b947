-- Reads the answers of the calls under an idempotency key; null when the key is new. => answers
select pgflow.answered(%(key)s::text, %(call)s::text)::text
