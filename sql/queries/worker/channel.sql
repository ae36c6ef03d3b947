-- The channel to listen on. => channel
select pgflow.channel()
