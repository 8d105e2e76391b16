"""The pages for browsers: the playground at `/` and the operator's view at `/status`."""

from serve_app.playground.file import PageFile, load

__all__ = ["PageFile", "load"]
