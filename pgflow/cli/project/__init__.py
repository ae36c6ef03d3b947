"""The commands to develop with pgflow: a new project, a development server, settings, completion."""
