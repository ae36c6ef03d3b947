"""What has happened in one run, worked out from its definition, its results and its live jobs; pure.

models.py   steps, edges, spans and reasons, as pages and the API have them
journey.py  the state of each step and of each edge, what ran when, and the critical path
why.py      why each live branch waits
"""
