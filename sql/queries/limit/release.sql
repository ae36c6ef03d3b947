-- Gives a place back. => was_held
select pgflow.release_place(%(place)s::bigint)
