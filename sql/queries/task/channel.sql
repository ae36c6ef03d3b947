-- The channel on which the ids of ended tasks are sent. => channel
select pgflow.ended_channel()
