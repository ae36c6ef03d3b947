"""A server that is hurt on purpose, with all that it stands on: a standby, a disk, a network, a clock."""
