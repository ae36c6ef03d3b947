"""`pgflow torture`: all the faults that this machine can produce, and a checker for what is lost or done twice.

What it is made of:

    command ─► trial ─┬─► load      callers, who start instances of every shape (flows) and note each answer (ink)
                      │             forked: a client process whose forked children call, too
                      ├─► fleet     worker processes, each started again when it has ended
                      ├─► nemesis   what is done to them, by seeded dice: to processes, sessions, the wire, the host
                      │               wire/    a proxy that understands PostgreSQL and loses commits one by one
                      │               host/    a server with a standby, a disk and a network, which can all be hurt
                      └─► checker   the whole history afterwards: I1 to I21, and what the run must have come across

Its decisions:

*The history is complete.* Triggers of a test install note each change in the transaction that makes it; steps and
callers write a line before and after. So nothing has to be guessed, and a run can be looked at again.

*Chance and aim.* Dice choose the faults, and each comes at least once; named points in the code (`store.failpoint`)
take a process apart just before and just after each commit, where chance would hit once in a million.

*A fault that did not come about proves nothing.* It makes the run invalid, not green.
"""
