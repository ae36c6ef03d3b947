-- Whether this role sees other roles' sessions. => complete, role
select pg_has_role('pg_read_all_stats', 'usage'), current_user::text
