"""Ray Serve shells: each hosts one part of `serve_app`, owns its lifecycle, and knows nothing else.

Only this package imports Ray. A file has the name of the part that it hosts.
"""
