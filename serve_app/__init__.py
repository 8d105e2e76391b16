"""dreamserve: a self-hosted Stable Diffusion server on Ray Serve.

Layers 1 to 3 of the service live here and run without Ray; `deployments/` holds the Ray shells
and `serve_app.app` wires both. `docs/architecture.md` has the picture.
"""

__version__ = "0.1.0"
