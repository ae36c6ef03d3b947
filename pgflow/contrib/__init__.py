"""What goes with pgflow and needs a package of its own: each module says which extra brings it.

Floor 5: a module here uses the public names of pgflow, as a user's would, and nothing in pgflow imports it.
"""
