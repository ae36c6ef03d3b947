"""One run: `setup` creates its environment, `run` drives and judges it, `journal` and `metrics` record it."""
