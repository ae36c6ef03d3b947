-- Finds the first breaking migration after a version, applied or announced. => version, name, checksum, breaking, applied_at; or no row
select m.version, m.name, m.checksum, m.breaking, m.applied_at
from pgflow.migrations m
where m.breaking and m.version > %(after)s
order by m.version
limit 1
