"""Worker processes: `fleet` restarts them, `failpoints` kill or stop them, `restartable` lets them run again."""
