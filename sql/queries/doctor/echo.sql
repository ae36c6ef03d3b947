-- Sends a notification, to test whether it arrives. => nothing
select pg_notify(%(channel)s, '')
