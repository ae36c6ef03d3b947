-- What came of the calls with a key; null: there were none. => answer
select pgflow.answered(%(key)s::text, %(call)s::text)::text
