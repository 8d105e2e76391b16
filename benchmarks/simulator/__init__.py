"""A cluster that exists in numbers only, driven by the service's own planner and policies.

What is real: the planner and the row caps of `serve_app.engine`, placement and scaling of
`serve_app.models` are imported and called as the service calls them. What is not: devices, weights
and clients, which are a table of times (`devices.py`) and random numbers (`traffic.py`).
"""
