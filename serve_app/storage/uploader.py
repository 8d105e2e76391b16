"""`Uploader`: writes the pictures of a job and vouches that they can be read."""

import asyncio
import base64
from collections.abc import Sequence

from serve_app import errors
from serve_app.config import StorageConfig
from serve_app.storage import names
from serve_app.storage.protocol import ObjectStore
from serve_app.types import JobResult, OutputPlan, Picture, Pictures

__all__ = ["Uploader"]

_FIRST_DELAY_S = 0.1


class Uploader:
    """Retries a store that is down for `storage.upload_retry_s`; then the job goes back to wait."""

    def __init__(self, files: ObjectStore, config: StorageConfig) -> None:
        self._files = files
        self._config = config

    async def store(
        self, plan: OutputPlan, pictures: Pictures, hints: Sequence[Picture] = ()
    ) -> JobResult:
        """Write every picture under its reserved key, and the hints that ControlNets were shown.

        Raises:
            errors.StorageUnavailable: a file could not be written, or not be read back.
        """
        assert len(plan.keys) == len(pictures.pictures), "one key per picture"
        try:
            async with asyncio.TaskGroup() as group:
                storing = [
                    group.create_task(self._store_one(key, picture, as_base64=plan.base64))
                    for key, picture in zip(plan.keys, pictures.pictures, strict=True)
                ]
                for key, picture in zip(plan.hint_keys, hints, strict=True):
                    group.create_task(self._store_one(key, picture, as_base64=False))
        except ExceptionGroup as failures:  # callers match on the class of one error
            raise failures.exceptions[0] from None
        return JobResult(
            keys=plan.keys,
            nsfw=pictures.nsfw,
            generation_time_s=pictures.generation_time_s,
            load_s=pictures.load_s,
            ran=pictures.ran,
            cost=pictures.cost.model_copy(
                update={"stored_bytes": sum(task.result() for task in storing)}
            ),
        )

    async def _store_one(self, key: str, picture: Picture, *, as_base64: bool) -> int:
        """Write a picture, and return its size in the store."""
        if as_base64:
            data, media_type = base64.b64encode(picture.data), "text/plain"
        else:
            data, media_type = picture.data, names.media_type(key)
        deadline = asyncio.get_running_loop().time() + self._config.upload_retry_s
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                await self._files.put(key, data, media_type)
                if await self._files.get(key) == data:
                    return len(data)
                raise errors.StorageUnavailable("a file just written reads differently")
            except errors.StorageUnavailable:
                if asyncio.get_running_loop().time() + delay_s > deadline:
                    raise
            await asyncio.sleep(delay_s)
            delay_s *= 2
