-- Discards the session's plans: each statement is planned again at its next use. => no rows
discard plans
