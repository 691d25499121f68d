"""An exported folder under a real `vllm serve`: it answers as the checkpoint does under transformers."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from heal_core.engines.base import EngineConfig
from heal_core.engines.vllm.command import serve_environment
from heal_core.engines.vllm.program import find_program
from heal_core.prompts import student_prompt

QUESTION = "Work modulo 100. Start with 5.\n1. Add 4.\n2. Double it.\nWhat is the result?"


pytestmark = [pytest.mark.full, pytest.mark.usefixtures("vllm_installed")]


@pytest.fixture
def server(export: Callable[..., Any], tmp_path: Path) -> Iterator[str]:
    """The address of vLLM with the exported folder."""
    program, folder = find_program(None), export().path
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    arguments = [str(folder), "--served-model-name", "student", "--dtype", "float32", "--enforce-eager"]
    arguments += ["--port", str(port), "--max-num-seqs", "2"]
    environment = serve_environment(program, EngineConfig(model_name_or_path=str(folder)), 0)
    with (tmp_path / "vllm.log").open("wb") as log:
        process = subprocess.Popen([*program.command, *arguments], env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 300
        while not is_ready(address):
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "vllm.log").read_text()[-3000:]
            time.sleep(1)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def test_vllm_answers_as_transformers_does(server: str, checkpoint: Path, greedy_text: Callable[..., str]) -> None:
    asked = {
        "model": "student",
        "messages": [{"role": "user", "content": student_prompt(QUESTION)}],
        "temperature": 0,
        "max_tokens": 96,
    }
    request = urllib.request.Request(
        f"{server}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        (choice,) = json.load(response)["choices"]
    assert choice["message"]["content"] == greedy_text(checkpoint, QUESTION)
    assert choice["finish_reason"] == "stop"
