-- Begins what is to be done once: what follows in the transaction happens only if nobody was there before with the same key (else PF013). => nothing to read
select pgflow.begin_request(%(key)s::text, %(call)s::text)
