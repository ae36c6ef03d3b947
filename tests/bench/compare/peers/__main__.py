"""Run the program of one peer."""

import sys
from importlib import import_module

from tests.bench.compare.peers.contestant import play

name, order = sys.argv[1:]
# Imported by name, not as __main__: workers look up a job by its module.
play(import_module(f"tests.bench.compare.peers.{name}").ENGINE, order)
