-- Which version of a workflow a start takes that names none. A column without a default: no row is rewritten, and older code need not know it.

alter table pgflow.definitions add column current_since timestamptz;  -- when an app last made it the current version; the latest of a workflow counts
