-- The channel that workers listen on. => channel
select pgflow.channel()
