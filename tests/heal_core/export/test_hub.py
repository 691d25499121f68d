"""A folder goes to a server that speaks the part of the hub's API that is used; errors never show the token."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

TOKEN = "hf_secretsecretsecret"
CARD = "---\nlicense: mit\n---\n# A card\n"


class Hub(ThreadingHTTPServer):
    """What was asked, what was uploaded, and how to answer the making of a repository.

    `is_private` is of the repository `ann/student`, None where there is none yet.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.create_status = 200
        self.is_private: bool | None = None
        self.tokens: set[str | None] = set()
        self.created: dict[str, Any] = {}
        self.blobs: dict[str, bytes] = {}
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub = self.server
        hub.tokens.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            hub.created = json.loads(body)
            if hub.create_status != 200:
                self._send(hub.create_status, {"error": f"no, {self.headers['Authorization']}"})
            elif hub.is_private is not None:
                self._send(409, {"error": "it exists already", "url": f"{hub.endpoint}/ann/student"})
            else:
                hub.is_private = hub.created.get("private") is True or hub.created.get("visibility") == "private"
                self._send(200, {"url": f"{hub.endpoint}/ann/student"})
        elif self.path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif self.path == "/api/models/ann/student/preupload/main":
            files = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self._send(200, {"files": files})
        elif self.path == "/ann/student.git/info/lfs/objects/batch":
            objects = [
                {**blob, "actions": {"upload": {"href": f"{hub.endpoint}/blobs/{blob['oid']}"}}}
                for blob in json.loads(body)["objects"]
            ]
            self._send(200, {"transfer": "basic", "objects": objects})
        elif self.path == "/api/models/ann/student/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    hub.messages.append(value["summary"])
                elif line["key"] == "deletedFile":
                    del hub.files[value["path"]]
                elif line["key"] == "file":
                    hub.files[value["path"]] = base64.b64decode(value["content"])
                else:
                    hub.files[value["path"]] = hub.blobs[value["oid"]]
            self._send(200, {"commitUrl": f"{hub.endpoint}/ann/student/commit/1", "commitOid": "1"})
        else:
            self._send(404, {"error": f"not spoken here: {self.path}"})

    def do_GET(self) -> None:
        hub = self.server
        if self.path == "/api/models/ann/student" and hub.is_private is not None:
            self._send(200, {"id": "ann/student", "private": hub.is_private, "siblings": []})
        elif self.path.startswith("/api/models/ann/student/tree/main?"):
            files = [
                {"type": "file", "path": path, "size": len(content), "oid": "0"} for path, content in hub.files.items()
            ]
            self._send(200, files)
        else:
            self._send(404, {"error": f"not spoken here: {self.path}"})

    def do_PUT(self) -> None:
        self.server.blobs[self.path.rpartition("/")[2]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(200, {})

    def _send(self, status: int, content: dict[str, Any] | list[dict[str, Any]]) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    return folder


def push(
    folder: Path, endpoint: str, name: str = "ann/student", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Push in a process of its own, since the library reads the environment when it is imported."""
    program = (
        "import sys; from pathlib import Path; from heal_core.export.hub import check_push, push_folder\n"
        "check_push(sys.argv[2]); print(push_folder(Path(sys.argv[1]), sys.argv[2], True, 'Stage III'))"
    )
    settings = {"HF_ENDPOINT": endpoint, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder.parent)}
    return subprocess.run(
        [sys.executable, "-c", program, str(folder), name],
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": "", **settings, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_folder_arrives_as_it_is(hub: Hub, folder: Path) -> None:
    done = push(folder, hub.endpoint)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.endpoint}/ann/student"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert (hub.created["name"], hub.created["organization"]) == ("student", "ann")
    assert hub.is_private is True
    assert (hub.tokens, hub.messages) == ({f"Bearer {TOKEN}"}, ["Stage III"])


def test_nothing_that_was_to_be_private_goes_into_a_public_repository(hub: Hub, folder: Path) -> None:
    hub.is_private = False  # the hub leaves it so, whatever the making of it asks for
    done = push(folder, hub.endpoint)
    assert done.returncode == 1 and "HubError" in done.stderr and "exists and is public" in done.stderr
    assert not hub.files and not hub.blobs


def test_a_second_push_leaves_nothing_of_the_model_before(hub: Hub, folder: Path) -> None:
    hub.is_private = True
    stale = ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "adapter_config.json", "config.json"]
    hub.files = {name: b"old" for name in [*stale, "plot.png", ".gitattributes"]}
    (folder / "config.json").unlink()  # as an adapter's folder has none
    done = push(folder, hub.endpoint)
    assert done.returncode == 0, done.stderr
    assert set(hub.files) == {path.name for path in folder.iterdir()} | {"plot.png", ".gitattributes"}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "the token is not valid (401)"),
        (403, "the token may not write there"),
        (400, "(400)"),  # what the server says; this one repeats the token
    ],
)
def test_what_the_hub_refuses_is_told_without_the_token(hub: Hub, folder: Path, status: int, said: str) -> None:
    hub.create_status = status
    done = push(folder, hub.endpoint)
    assert done.returncode == 1
    assert said in done.stderr and f"ann/student was not pushed to {hub.endpoint}" in done.stderr
    assert "HubError" in done.stderr and TOKEN not in done.stderr + done.stdout
    assert not hub.files


def test_a_hub_out_of_reach_is_told(folder: Path) -> None:
    done = push(folder, "http://127.0.0.1:9")
    assert "HubError" in done.stderr and "was not pushed to http://127.0.0.1:9" in done.stderr
    assert TOKEN not in done.stderr


@pytest.mark.parametrize(
    ("name", "environment", "said"),
    [
        ("ann/student", {"HF_TOKEN": ""}, "there is no token for the hub: set HF_TOKEN"),
        ("ann/student", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ("ann/stu/dent", {}, "expected OWNER/NAME or NAME"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_asked(
    hub: Hub, folder: Path, name: str, environment: dict[str, str], said: str
) -> None:
    done = push(folder, hub.endpoint, name, **environment)
    assert done.returncode == 1 and "InputError" in done.stderr and said in done.stderr
    assert not hub.tokens
