"""Tests of the harness itself: its servers, networks, disks and clocks, its proxy, checker and failpoints."""
