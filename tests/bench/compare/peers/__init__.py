"""The contestants: one program each, run in an environment of its own in which pgflow's packages need not be.

    python -m tests.bench.compare.peers dbos prepare|drive|serve

Each drives its engine as that one's documents recommend, in two configurations: "default" is what the first page of
the documents has, "best" the fastest that they offer with the same durability. The database is in `BENCH_DSN`, the
configuration in `BENCH_CONFIG`, the folder for marks where pgflow's own benchmark has it (pgflow/bench/trace.py).

Every step does the same, `mark`: it counts itself, in a file. Nothing else of the measuring is in these programs but
the calls that are timed.
"""
