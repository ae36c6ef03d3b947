"""The peers: one program each, run in its own environment, in which pgflow need not be installed.

    python -m tests.bench.compare.peers dbos prepare|drive|serve

Each uses its engine as its documentation recommends, in two configurations: "default" is that of the documentation's
first page, "best" the fastest that it offers with the same durability. The database is in `BENCH_DSN`, the
configuration in `BENCH_CONFIG`, the folder of trace files in the variable of `pgflow/bench/trace.py`.

Every step calls `mark`, which counts it in a trace file. Apart from that and the timed calls, these programs measure
nothing.
"""
