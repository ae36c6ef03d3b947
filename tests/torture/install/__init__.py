"""What only a test install has: `audit` logs all changes, `debug` moves the clock and rejects writes; SQL in `sql/`."""
