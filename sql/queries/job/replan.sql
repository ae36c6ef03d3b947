-- Has the session's statements planned anew, each at its next use. => nothing to read
discard plans
