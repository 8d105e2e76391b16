"""A model hub for tests over real HTTP, in the layout that `huggingface_hub` asks for.

Small files are answered in place, weights by a redirect to another host name, as the hub does with
large ones. Source: huggingface_hub 2.4, `hf_api.py` (`repo_info`, `list_repo_tree`) and
`file_download.py`.
"""

import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote, urlsplit

import pytest

__all__ = ["HubServer"]

_RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_BLOB = re.compile(r"/blobs/(?P<sha256>[0-9a-f]{64})")


class HubServer:
    """Serves until `close`. `calls`: method and path of each request. `tokens`: what they sent."""

    def __init__(self):
        self.calls = []
        self.tokens = set()
        self._repos = {}
        self._blobs = {}
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path = unquote(urlsplit(self.path).path)
                hub.calls.append((self.command, path))
                hub.tokens.add(self.headers.get("authorization"))
                status, headers, body = hub._answer(path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_args):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        )
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._blob_url = f"http://localhost:{self._server.server_port}/blobs/"

    def commit(self, repo, files, revision="main"):
        """Let a branch or tag of a repository hold these files; returns the commit's hash."""
        facts = json.dumps({path: hashlib.sha256(data).hexdigest() for path, data in files.items()})
        commit = hashlib.sha1(facts.encode()).hexdigest()
        self._repos.setdefault(repo, {}).update(
            {revision: (commit, files), commit: (commit, files)}
        )
        self._blobs |= {hashlib.sha256(data).hexdigest(): data for data in files.values()}
        return commit

    def gets(self, ending):
        """Count the downloads of what ends so."""
        return sum(method == "GET" and path.endswith(ending) for method, path in self.calls)

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path):
        if blob := _BLOB.fullmatch(path):
            return 200, {"ETag": f'"{blob["sha256"]}"'}, self._blobs[blob["sha256"]]
        for pattern, answer in ((_INFO, _info), (_TREE, _tree), (_RESOLVE, _file)):
            if match := pattern.fullmatch(path):
                revisions = self._repos.get(match["repo"])
                if revisions is None:
                    return _missing("RepoNotFound")
                if match["revision"] not in revisions:
                    return _missing("RevisionNotFound")
                status, headers, body = answer(match, *revisions[match["revision"]])
                if "Location" in headers:
                    headers["Location"] = self._blob_url + headers["Location"]
                return status, headers, body
        return _missing("EntryNotFound")


def _info(match, commit, files):
    siblings = [{"rfilename": path} for path in files]
    return _json({"id": match["repo"], "sha": commit, "siblings": siblings})


def _tree(_match, _commit, files):
    return _json(
        [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in files.items()
        ]
    )


def _file(match, commit, files):
    if match["path"] not in files:
        return _missing("EntryNotFound")
    data = files[match["path"]]
    headers = {"X-Repo-Commit": commit}
    if not match["path"].endswith(".safetensors"):
        return 200, {**headers, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}, data
    sha256 = hashlib.sha256(data).hexdigest()
    linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
    return 302, {**headers, **linked, "Location": sha256}, b""


def _json(content):
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _missing(code):
    return 404, {"X-Error-Code": code}, b""


@pytest.fixture
def hub():
    """An empty hub."""
    server = HubServer()
    yield server
    server.close()
