"""The commands that show a running system: why something waits, workers, tasks, what happens, and a live view."""
