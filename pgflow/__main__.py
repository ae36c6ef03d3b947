"""`python -m pgflow` is the command `pgflow`."""

from pgflow.cli import main

if __name__ == "__main__":
    main()
