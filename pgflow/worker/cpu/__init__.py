"""Run `cpu=True` steps and tasks in a pool of processes, which can be killed.

    pool      `CpuPool`: a bounded number of children, started when needed; hard time limits
    child     one child as its worker sees it: start, ask, kill
    control   progress and checkpoints of an attempt
    frames    messages between the two: JSON, with their length before them
    main      the child's program: import the app, run attempts, die with the worker
    attempts  an attempt at a step or a task as a message, and its result

Decisions:

*Children are new interpreters.* A fork would copy the worker's connections, threads and locks. A child imports the app
by the name that the operator has given on the command line, or under which the program itself has imported it; no name
comes from the database.

*Only JSON crosses.* The worker sends a context and gets a result; a child looks the function up in its own app, by
workflow, version and step, or by the name of a task, and refuses to run a step of another graph.

*To stop a step is to kill its child.* `max_runtime`, a cancellation and the end of the worker kill it, with all
processes that it has started; the next attempt gets a new one. A child that dies by itself fails its attempt only.

*A child cannot outlive its worker*, not even in native code that holds Python's global lock: the kernel sends SIGKILL
to its process group when the worker's end of a pipe closes (main.py).
"""
