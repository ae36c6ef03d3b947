-- Whether this role sees what other roles' sessions do. => sees, role
select pg_has_role('pg_read_all_stats', 'usage'), current_user::text
