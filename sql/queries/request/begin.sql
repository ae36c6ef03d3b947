-- Claims an idempotency key for this transaction. Raises PF013 if it was already used, which cancels the statements behind it. => no result
select pgflow.begin_request(%(key)s::text, %(call)s::text)
