"""An S3 server for tests over real HTTP: moto, behind a door that checks signatures.

moto takes any signature, also an expired one. The door recomputes Signature Version 4 with nothing
but hashlib and hmac, for signed requests and for presigned links, against a clock that tests move.
Source: AWS, "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API reference.
"""

import hashlib
import hmac
import io
import threading
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from urllib.parse import parse_qsl, quote

import pytest

from serve_app.config import StorageConfig

ACCESS_KEY_ID = "AKIATESTTESTTESTTEST"
SECRET = "a-secret/with+signs"
BUCKET = "pictures"
_DATE = "%Y%m%dT%H%M%SZ"
_SKEW = timedelta(minutes=15)


class S3Server:
    """One server in a thread; `clock_offset` moves its clock, `failures` are answered first.

    While `is_down` it answers 503 to all.
    """

    def __init__(self):
        self.clock_offset = timedelta()
        self.is_down = False
        self.failures = []
        self.calls = []
        # Slow to import, and only few tests need it.
        import boto3
        from moto.backends import get_backend
        from moto.moto_server import werkzeug_app
        from werkzeug.serving import make_server

        self._backend = get_backend("s3")
        self._moto = werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app)
        self._server = make_server(
            "127.0.0.1",
            0,
            self._answer,
            threaded=True,
            request_handler=werkzeug_app.MotoRequestHandler,
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET,
        )

    def reset(self):
        """Forget everything and make an empty bucket."""
        self.clock_offset = timedelta()
        self.failures.clear()
        for regions in self._backend.values():
            regions["aws"].reset()
        self._client.create_bucket(Bucket=BUCKET)
        self.calls.clear()

    def config(self, **changes):
        """Settings for the bucket."""
        return StorageConfig.model_validate(self.settings(**changes))

    def settings(self, **changes):
        """Those, as a file has them."""
        bucket = {
            "bucket": BUCKET,
            "endpoint_url": self.url,
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": SECRET,
            "prefix": "site/a",
            "timeout_s": 5,
        }
        return {"backend": "s3", "s3": {**bucket, **changes}}

    def age(self, seconds):
        """Make every file older."""
        for regions in self._backend.values():
            for bucket in regions["aws"].buckets.values():
                for key in bucket.keys.values():
                    key.last_modified -= timedelta(seconds=seconds)

    def media_type(self, full_key):
        """Media type that a file is kept with."""
        (regions,) = self._backend.values()
        return regions["aws"].buckets[BUCKET].keys[full_key].metadata["Content-Type"]

    def close(self):
        self._client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        self.calls.append(environ["REQUEST_METHOD"])
        if self.is_down:
            return _refuse(start_response, HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown")
        if self.failures:
            return _refuse(start_response, self.failures.pop(0), "InternalError")
        reason = _fault(environ, body, datetime.now(UTC) + self.clock_offset)
        if reason is not None:
            return _refuse(start_response, HTTPStatus.FORBIDDEN, reason)
        return self._moto(environ, start_response)


def _refuse(start_response, status, code):
    status = HTTPStatus(status)
    text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
    start_response(f"{status.value} {status.phrase}", headers)
    return [text]


def _fault(environ, body, now):
    """Why S3 would refuse the request; None when it is signed well."""
    _, _, query = environ["REQUEST_URI"].partition("?")
    fields = dict(parse_qsl(query, keep_blank_values=True))
    if "X-Amz-Signature" in fields:
        signed_at = datetime.strptime(fields["X-Amz-Date"], _DATE).replace(tzinfo=UTC)
        life = timedelta(seconds=int(fields["X-Amz-Expires"]))
        if life > timedelta(days=7) or not signed_at - _SKEW <= now <= signed_at + life:
            return "AccessDenied"
        credential, names = fields["X-Amz-Credential"], fields["X-Amz-SignedHeaders"]
        given, payload_hash, date = (
            fields["X-Amz-Signature"],
            "UNSIGNED-PAYLOAD",
            fields["X-Amz-Date"],
        )
    else:
        scheme, _, rest = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme != "AWS4-HMAC-SHA256":
            return "AccessDenied"
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        credential, names, given = parts["Credential"], parts["SignedHeaders"], parts["Signature"]
        payload_hash, date = environ["HTTP_X_AMZ_CONTENT_SHA256"], environ["HTTP_X_AMZ_DATE"]
        if payload_hash not in ("UNSIGNED-PAYLOAD", hashlib.sha256(body).hexdigest()):
            return "XAmzContentSHA256Mismatch"
    key_id, _, scope = credential.partition("/")
    canonical = _canonical_request(environ, names, payload_hash)
    wanted = _signature(scope, date, canonical)
    return None if key_id == ACCESS_KEY_ID and wanted == given else "SignatureDoesNotMatch"


def _canonical_request(environ, names, payload_hash):
    path, _, query = environ["REQUEST_URI"].partition("?")
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name != "X-Amz-Signature"
    )
    headers = ""
    for name in names.split(";"):
        variable = name.upper().replace("-", "_")
        is_plain = variable in ("CONTENT_TYPE", "CONTENT_LENGTH")
        headers += f"{name}:{environ[variable if is_plain else f'HTTP_{variable}'].strip()}\n"
    lines = (environ["REQUEST_METHOD"], path, "&".join(f"{name}={value}" for name, value in pairs))
    return "\n".join((*lines, headers, names, payload_hash))


def _signature(scope, date, canonical):
    key = f"AWS4{SECRET}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashed}"
    return hmac.new(key, text.encode(), "sha256").hexdigest()


@pytest.fixture(scope="session")
def _s3_process():
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3_server(_s3_process):
    """The server with one empty bucket."""
    _s3_process.reset()
    return _s3_process
