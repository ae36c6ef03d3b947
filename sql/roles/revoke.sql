-- Takes back all that a role has in the schema: what an earlier release gave it, or a hand.
revoke all on all tables in schema {schema} from {role};
revoke all on all sequences in schema {schema} from {role};
revoke all on all routines in schema {schema} from {role};
revoke all on schema {schema} from {role};
