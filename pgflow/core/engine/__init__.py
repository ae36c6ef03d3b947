"""The pure engine: events in, state and commands out.

state       the types: an instance's state, the events that change it, the commands that follow
machine     `advance(state, event)` and `replay`
stretch     the linear stretches of a graph as a table: `follow` is `advance` for most steps, without the graph
attempt     interpret what an attempt at a step returned or raised
"""
