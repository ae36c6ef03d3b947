-- Sends a notification, to find out whether it arrives. => nothing to read
select pg_notify(%(channel)s, '')
