"""The checks on definitions. One error per class lists all of its problems.

problems        collects problems, so that one message lists all of them
callables       signatures and return types of a user's functions
step_rules      one step: its events, `execute`, attributes and configuration
graph_rules     the graph: cycles, unreachable steps, paths to Done, fan-outs that join
build           runs the checks on a workflow class and builds its graph
"""
