"""`S3Store`: files in a bucket, by boto3 in threads.

A link to a result that stays is the public URL where one is configured, else presigned; a link that
must end is always presigned. The files themselves end by `expire`, exact to a round of the janitor,
and by a lifecycle rule of the bucket should there be no janitor: that one counts whole days.
"""

import asyncio
import email.utils
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from serve_app import errors
from serve_app.config import StorageConfig
from serve_app.config.storage import S3Config
from serve_app.storage import names

__all__ = ["S3Store"]

T = TypeVar("T")
_MISSING = {"NoSuchKey", "404"}
_NO_RULES = "NoSuchLifecycleConfiguration"
_RULE_PREFIX = "dreamserve-"
_DAY_S = 86_400.0
_MAX_CONNECTIONS = 32


class S3Store:
    """Implements `storage.protocol.ObjectStore`; safe for many threads and processes."""

    def __init__(self, config: StorageConfig) -> None:
        assert config.s3 is not None, "StorageConfig sees to it"
        self._config = config
        self._s3 = config.s3
        self._client = _client(self._s3, self._s3.endpoint_url)
        link_url = self._s3.link_endpoint_url
        self._signer = self._client if link_url is None else _client(self._s3, link_url)

    async def put(self, key: str, data: bytes, media_type: str) -> None:
        """Write a file; see the protocol."""
        where = self._where(key)
        await _in_thread(
            lambda: self._client.put_object(**where, Body=data, ContentType=media_type)
        )

    async def get(self, key: str) -> bytes | None:
        """Read a file; see the protocol.

        Without the right to list the bucket, S3 answers 403 for a missing file: unavailable.
        """
        return await _in_thread(lambda: self._get(key)) if names.is_key(key) else None

    async def delete(self, key: str) -> None:
        """Remove a file; see the protocol."""
        where = self._where(key)
        await _in_thread(lambda: self._client.delete_object(**where))

    async def expire(self, folder: str, older_than_s: float) -> int:
        """Remove old files of a folder; see the protocol. Ages are by the store's clock."""
        prefix = self._full_key(f"{folder}/any").removesuffix("any")
        return await _in_thread(lambda: self._expire(prefix, older_than_s))

    async def url(self, key: str, base_url: str, ttl_s: float | None = None) -> str:  # noqa: ARG002
        """Link to a file; see the protocol. `base_url` is not used: the bucket serves."""
        where = self._where(key)
        if ttl_s is None and self._s3.public_url is not None:
            return f"{self._s3.public_url}/{where['Key']}"
        life_s = max(1, int(self._s3.link_ttl_s if ttl_s is None else ttl_s))
        return await _in_thread(
            lambda: str(
                self._signer.generate_presigned_url("get_object", Params=where, ExpiresIn=life_s)
            )
        )

    async def ensure_lifecycle(self) -> None:
        """Set a rule per temporary folder on the bucket; see the protocol.

        Needs the right to read and write the lifecycle configuration. Rules of others stay.
        """
        await _in_thread(self._ensure_lifecycle)

    def _full_key(self, key: str) -> str:
        names.check(key)
        return f"{self._s3.prefix}/{key}" if self._s3.prefix else key

    def _where(self, key: str) -> Mapping[str, str]:
        return {"Bucket": self._s3.bucket, "Key": self._full_key(key)}

    def _get(self, key: str) -> bytes | None:
        try:
            answer = self._client.get_object(**self._where(key))
        except ClientError as exc:
            if _code(exc) in _MISSING:
                return None
            raise
        with answer["Body"] as body:
            return bytes(body.read())

    def _expire(self, prefix: str, older_than_s: float) -> int:
        num_removed = 0
        for keys in self._old_keys(prefix, older_than_s):
            removal = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
            answer = self._client.delete_objects(Bucket=self._s3.bucket, Delete=removal)
            refused = answer.get("Errors", [])
            if refused:
                raise errors.StorageUnavailable(f"{len(refused)} files were not removed")
            num_removed += len(keys)
        return num_removed

    def _old_keys(self, prefix: str, older_than_s: float) -> Iterator[list[str]]:
        """List what is older, in pages of at most 1000, which is what one removal takes."""
        pages = self._client.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._s3.bucket, Prefix=prefix):
            now = email.utils.parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
            old = [
                item["Key"]
                for item in page.get("Contents", [])
                if (now - item["LastModified"]).total_seconds() > older_than_s
            ]
            if old:
                yield old

    def _ensure_lifecycle(self) -> None:
        bucket = self._s3.bucket
        try:
            found = self._client.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        except ClientError as exc:
            if _code(exc) != _NO_RULES:
                raise
            found = []
        lives_s = {names.TEMP: self._config.temp_ttl_s, names.INPUTS: self._config.input_ttl_s}
        ours = [self._rule(folder, life_s) for folder, life_s in lives_s.items()]
        our_ids = {rule["ID"] for rule in ours}
        rules = [rule for rule in found if rule.get("ID") not in our_ids] + ours
        if rules != found:
            self._client.put_bucket_lifecycle_configuration(
                Bucket=bucket, LifecycleConfiguration={"Rules": rules}
            )

    def _rule(self, folder: str, life_s: float) -> dict[str, object]:
        prefix = self._full_key(f"{folder}/any").removesuffix("any")
        return {
            "ID": f"{_RULE_PREFIX}{prefix.replace('/', '-')}expiry",
            "Status": "Enabled",
            "Filter": {"Prefix": prefix},
            "Expiration": {"Days": max(1, math.ceil(life_s / _DAY_S))},
        }


def _client(config: S3Config, endpoint_url: str | None):  # type: ignore[no-untyped-def]
    """Make a client; boto3 has no types."""
    key_id, secret = config.access_key_id, config.secret_access_key
    options = Config(
        signature_version="s3v4",
        connect_timeout=config.timeout_s,
        read_timeout=config.timeout_s,
        max_pool_connections=_MAX_CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": config.max_attempts},
        s3={"addressing_style": "path" if config.path_style else "virtual"},
        # boto3's newer default sends trailing checksums, which other makes of S3 do not know.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client(
        "s3",
        region_name=config.region,
        endpoint_url=endpoint_url,
        aws_access_key_id=key_id.get_secret_value() if key_id else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=options,
    )


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


async def _in_thread(work: Callable[[], T]) -> T:
    """Run a blocking call beside the event loop."""
    try:
        return await asyncio.to_thread(work)
    except (BotoCoreError, ClientError, OSError) as exc:
        raise errors.StorageUnavailable(f"{type(exc).__name__}: {exc}") from exc
