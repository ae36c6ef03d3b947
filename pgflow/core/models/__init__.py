"""What callers read: instances and jobs, and the filters that select them.

instance, job       frozen read models, the same for every backend
filters             the filters of `list` and `query`, the same in memory and on PostgreSQL
instance_rules      validate an instance that is put into a storage
instance_codec      encrypt and decrypt the fields of an instance
"""
