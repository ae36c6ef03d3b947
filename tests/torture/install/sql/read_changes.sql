-- Reads the committed changes of a test install, in order. => seq, xact, at and moment (seconds since 1970), who, backend, relation, op, was, is_now
select a.seq, a.xact::text::bigint, extract(epoch from a.at)::double precision,
    extract(epoch from a.moment)::double precision, a.who, a.backend,
    a.relation, a.op, a.was::text, a.is_now::text
from pgflow.change_log a
where a.seq > %(after)s
order by a.seq
limit %(limit)s
