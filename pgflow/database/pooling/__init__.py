"""Connection pools of an application, per process: one for its threads, one for each of its event loops."""
