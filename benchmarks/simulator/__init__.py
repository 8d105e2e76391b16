"""A cluster that exists in numbers only, driven by the service's own planner and policies.

What is real: `serve_app.engine.planner`, `serve_app.engine.row_caps`, `serve_app.models.placement` and
`serve_app.models.scaling` are imported and called as the service calls them. What is not: devices,
weights and clients, which are a table of times (`devices.py`) and random numbers (`traffic.py`).
"""
