"""The loop's turns: one round trip each, in which a worker settles what has finished and claims what it can run.

| module | what it does |
|---|---|
| claimer | owns the connection, sends turns, and waits out outages |
| planner | plans the requests of a turn, and takes over the answers |
| turn | the values of one turn: requests with their callbacks |
| state | the state that turns share and chores may change |
| schedule | when to look at the database again |
| single | settles decisions one by one where the database refuses a batch |
| faults | classifies errors of the database, logs each fault once a minute |
| watermark | where in the index a queue's claim starts |
"""
