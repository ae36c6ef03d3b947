"""Adapters that need a package of their own; each module names the extra that installs it.

Nothing in pgflow imports a module of this package.
"""
