"""The schema and its history: install, upgrade, inspect, export as SQL, and grant privileges.

migrate     bring a schema up to this version, under a lock; check it before use
apply       apply one migration, in a transaction or outside one
schema      compare a schema with the migrations of this version
script      write migrations as SQL for psql and other migration tools
grants      give roles the privileges of a client, a worker or a dashboard
"""
