"""Servers, disks, networks and clocks that can fail on purpose; each fault is healed completely."""
