"""Deployment handles without Ray: each call runs as in a process of its own, in this one.

Only what travels as an argument reaches the other side: no context of the caller does.
"""

import asyncio
import contextvars


class LocalHandle:
    """Stands for the handle of a deployment whose only replica is `replica`."""

    app_name = "dreamserve"

    def __init__(self, replica):
        self._replica = replica
        self.deployment_name = type(replica).__name__

    def options(self, **_options):
        return self

    def __getattr__(self, name):
        return _Method(getattr(self._replica, name))


class _Method:
    def __init__(self, method):
        self._method = method

    def remote(self, *args, **kwargs):
        return _Response(self._run(args, kwargs))

    async def _run(self, args, kwargs):
        given = [await arg if isinstance(arg, _Response) else arg for arg in args]
        return await self._method(*given, **kwargs)


class _Response:
    def __init__(self, work):
        self._task = asyncio.create_task(work, context=contextvars.Context())

    def __await__(self):
        return self._task.__await__()

    def cancel(self):
        self._task.cancel()
