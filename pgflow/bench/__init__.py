"""Measure throughput, latency and the cost of a step. `pgflow bench` renders the results.

scenarios         what can be measured, by name
throughput        how fast instances start, and how fast workers drain a backlog
latency           how soon a step begins while the workers are idle
environment       a server and schema to measure on; one run with its workers
scratch_schema    the schema, created for the benchmark and dropped after it
flows, trace      the measured workflows; counters and timestamps that their steps write to files
meter, machine    cost from the server's counters; CPU and memory from /proc
worker_processes  real worker processes, also used by the demo
result            measurements, with medians and ranges over several runs

Decisions:

*Measure what users run.* The client starts instances, `pgflow worker` processes run the steps, and nothing is switched
off. The steps do nothing, so only the engine's share remains.

*Keep the database out of the measurement.* Steps write to trace files; times are the machine's monotonic clock, from
the call in one process to the first line of a step in another.

*Start each run with empty tables,* in a schema of the benchmark's own, on a throwaway server with durable settings or
on a given one. Other schemas are not touched.

*Interleave the scenarios.* All scenarios run once, then all again, so that other load on the machine affects them
equally. Results are medians with the lowest and the highest run.

*Take costs from the server's counters,* read before the first worker starts and after the last session ends. They
include a worker's start and stop; a few thousand steps make that share small.
"""
