"""The faults, and their injection: `fault` is one kind, `schedule` their order, `injector` runs them in two lanes.

processes, sessions, wire, host, clients and flow_faults list the faults of each kind of target.
"""
