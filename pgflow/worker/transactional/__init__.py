"""Transactional steps: the step's own writes and its result commit together.

| module | what it does |
|---|---|
| runner | runs such a step and settles it in its transaction |
| transaction | opens that transaction on a pooled connection, for sync and async steps |
| session | lends the step a session and resets it afterwards |
| faults | finds out in which state a step has left its session |
"""
