-- Revokes every right of a role in the schema, whether an earlier release granted it or a person did.
revoke all on all tables in schema {schema} from {role};
revoke all on all sequences in schema {schema} from {role};
revoke all on all routines in schema {schema} from {role};
revoke all on schema {schema} from {role};
