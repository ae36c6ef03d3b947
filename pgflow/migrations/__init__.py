"""The schema and its history: install, upgrade, inspect, export as SQL, and grant rights.

migrate     bring a schema up to this version, under a lock
schema      compare a schema with the migrations of this version
script      write migrations as SQL for psql and other migration tools
grants      give roles the rights of a client, a worker or a dashboard
"""
