-- Takes a place of a limit for `lease` seconds. => place (null: none is free), seconds (until it is worth asking again, null: when one is released)
select t.place, t.seconds
from pgflow.take_place(%(queue)s::text, %(key)s::text, %(cost)s::integer, make_interval(secs => %(lease)s::double precision), %(holder)s::text) t
