-- Lists actions, newest first; `before` is the last id of the previous page. => id, at, who, action, details
select a.id, a.at, a.who, a.action, a.details::text
from pgflow.audit a
where (%(action)s::text is null or starts_with(a.action, %(action)s::text))
    and (%(who)s::text is null or strpos(a.who, %(who)s::text) > 0)
    and (%(before)s::bigint is null or a.id < %(before)s::bigint)
order by a.id desc
limit %(limit)s
