-- Sets the name that the audit rows of this transaction carry beside the session's user. => no result
select pgflow.identify(%(who)s::text)
