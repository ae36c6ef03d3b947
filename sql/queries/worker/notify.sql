-- Sends notifications to all workers that listen; store/notification.py defines the payloads. => nothing
select pg_notify(pgflow.channel(), n.payload) from unnest(%(payloads)b::text[]) n (payload)
