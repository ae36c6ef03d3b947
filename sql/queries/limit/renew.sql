-- Renews the leases of places. => place, for each that is still held
select pgflow.renew_places(%(places)b::bigint[], make_interval(secs => %(lease)s::double precision))
