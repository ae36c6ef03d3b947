"""Run one contestant: what it is to do is its second argument."""

import sys
from importlib import import_module

from tests.bench.compare.peers.contestant import play

name, order = sys.argv[1:]
# By its name and not as __main__: workers look for the module of a job by that.
play(import_module(f"tests.bench.compare.peers.{name}").ENGINE, order)
