"""An OpenAI-compatible server of a small model for tests, which can be told to misbehave.

    python model_server.py FOLDER [--dialect vllm|plain|llama] [--name NAME] [--key KEY]

It samples for real, one request at a time, and prints its port. `POST /faults` with a list of names lets the next
requests for text fail so, one each; `{"always": NAME}` all of them. `GET /seen` tells what was asked.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM  # noqa: F401  before this is forked

from heal_core.chat import render_prompt_ids
from heal_core.engines.base import EngineConfig, SamplingConfig
from heal_core.engines.drawing import draw, slot_uniforms
from heal_core.engines.loading import load

HANG_SECONDS = 30.0


class State:
    """The model and what is to happen; requests come in several threads."""

    def __init__(self, folder: Path, dialect: str, name: str, key: str) -> None:
        self.loaded = load(EngineConfig(model_name_or_path=str(folder), dtype="float32", num_threads=1), folder)
        self.dialect = dialect
        self.name = name
        self.key = key
        self.lock = threading.Lock()
        self.faults: list[str] = []
        self.always: str | None = None
        self.seen: list[dict[str, Any]] = []
        self.num_broken_off = 0
        self.cached: set[tuple[int, ...]] = set()

    def next_fault(self) -> str | None:
        with self.lock:
            return self.faults.pop(0) if self.faults else self.always

    def sample(self, ids: list[int], body: dict[str, Any]) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield token ids with the log-probabilities that they were drawn from; the end of the turn too."""
        sampling = SamplingConfig(temperature=body.get("temperature", 1.0), top_p=body.get("top_p", 1.0))
        slot = str(body.get("seed", 0))
        cache, given = None, ids
        for step in range(body["max_tokens"]):
            with self.lock, torch.inference_mode():
                out = self.loaded.model(
                    input_ids=torch.tensor([given]), past_key_values=cache, use_cache=True, logits_to_keep=1
                )
            cache, logits = out.past_key_values, out.logits[:, -1]
            token = int(draw(logits, torch.from_numpy(slot_uniforms(slot, step, 1)), sampling))
            yield token, logits[0].float().log_softmax(-1)
            if token in self.loaded.eos_ids:
                return
            given = [token]

    def score(self, ids: list[int]) -> torch.Tensor:
        """Return the log-probabilities at each position but the last, shape [T - 1, V]."""
        with self.lock, torch.inference_mode():
            logits = self.loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
        result: torch.Tensor = logits.float().log_softmax(-1)
        return result

    def decode(self, token: int) -> str:
        return str(self.loaded.tokenizer.decode([token], skip_special_tokens=False))

    def data(self, token: int) -> list[int]:
        """Return a token's bytes; of a byte-level tokenizer each character of the vocabulary is one."""
        text = self.loaded.tokenizer.convert_ids_to_tokens(token)
        if token in self.loaded.tokenizer.all_special_ids:
            return list(text.encode())
        return [BYTES[character] for character in text]


def _byte_characters() -> dict[str, int]:
    """Return the byte that each character of a byte-level vocabulary stands for (GPT-2's table)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + index): byte for index, byte in enumerate(others)}


BYTES = _byte_characters()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/seen":
            with self.state.lock:
                self._answer({"requests": self.state.seen, "broken_off": self.state.num_broken_off})
        elif self.path == "/version" and self.state.dialect == "vllm":
            self._answer({"version": "0.0-test"})
        elif self.path == "/v1/models":
            if self._is_welcome():
                self._answer({"data": [{"id": self.state.name, "max_model_len": 512}]})
        else:
            self._refuse(404, "no such path")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/faults":
            with self.state.lock:
                self.state.always = body.get("always") if isinstance(body, dict) else None
                self.state.faults = [] if isinstance(body, dict) else list(body)
            self._answer({})
            return
        if not self._is_welcome():
            return
        with self.state.lock:
            self.state.seen.append({name: value for name, value in body.items() if name != "prompt"})
        fault = self.state.next_fault()
        if fault is not None and self._misbehaves_at_once(fault):
            return
        if body["model"] != self.state.name:
            self._refuse(404, f"The model `{body['model']}` does not exist.")
            return
        is_chat = self.path == "/v1/chat/completions"
        ids = (
            render_prompt_ids(self.state.loaded.tokenizer, body["messages"][0]["content"])
            if is_chat
            else body["prompt"]
        )
        if len(ids) + body["max_tokens"] > 512:
            self._refuse(400, "This model's maximum context length is 512 tokens.")
        elif body.get("prompt_logprobs") is not None and not is_chat:
            self._score(ids, body)
        else:
            self._complete(ids, body, is_chat, fault)

    def _is_welcome(self) -> bool:
        if not self.state.key or self.headers.get("Authorization") == f"Bearer {self.state.key}":
            return True
        self._refuse(401, f"Incorrect API key provided: {self.headers.get('Authorization')}")
        return False

    def _misbehaves_at_once(self, fault: str) -> bool:
        match fault:
            case "429":
                self._refuse(429, "Rate limit reached", {"Retry-After": "1"})
            case "429 date":
                at = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 1))
                self._refuse(429, "Rate limit reached", {"Retry-After": at})
            case "500":
                self._refuse(500, "Internal error")
            case "503":
                self._refuse(503, "Overloaded")
            case "html":
                self._send(200, b"<html>gateway</html>", "text/html")
            case "hang":
                time.sleep(HANG_SECONDS)
                self.close_connection = True
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
                self.connection.close()
                self.close_connection = True
            case _:
                return False
        return True

    def _complete(self, ids: list[int], body: dict[str, Any], is_chat: bool, fault: str | None) -> None:
        num_top = body.get("top_logprobs", body.get("logprobs", 1)) if is_chat else body.get("logprobs", 1)
        stream = body.get("stream", False)
        name = "another-model" if fault == "model" else self.state.name
        pieces = []
        if stream:
            self._start_stream()
        count, finish = 0, "length"
        for token, logprobs in self.state.sample(ids, body):
            count += 1
            is_end = token in self.state.loaded.eos_ids
            finish = "stop" if is_end else "length"
            is_last = is_end or count == body["max_tokens"]
            choice = {"index": 0, "finish_reason": finish if is_last else None}
            if not (is_end and self.state.dialect != "vllm"):  # others leave the end of the turn out
                choice |= self._told(token, logprobs, num_top, is_chat, fault if count == 2 else None)
            piece = {"model": name, "choices": [choice]}
            if not stream:
                pieces.append(choice)
            elif not self._misbehaves_within(fault, count, piece):
                return
        usage = {
            "prompt_tokens": len(ids),
            "completion_tokens": count
            + (3 if fault == "count" else 0)
            - (self.state.dialect == "llama" and finish == "stop"),
            "prompt_tokens_details": {"cached_tokens": len(ids) - 1 if tuple(ids) in self.state.cached else 0},
        }
        if self.state.dialect == "plain" and finish == "stop" and not is_chat:
            usage["completion_tokens"] -= 1
        self.state.cached.add(tuple(ids))
        if stream:
            self._piece({"model": name, "choices": [], "usage": usage})
            self._raw(b"data: [DONE]\n\n")
            self._raw(b"")
        else:
            self._answer({"model": name, "choices": pieces[-1:], "usage": usage})

    def _told(
        self, token: int, logprobs: torch.Tensor, num_top: int, is_chat: bool, fault: str | None
    ) -> dict[str, Any]:
        values, indices = logprobs.topk(max(num_top, 1))
        logprob = float("nan") if fault == "nan" else float(logprobs[token])
        tops = {int(i): float(v) for v, i in zip(values, indices, strict=True)}
        tops.setdefault(token, logprob)
        decode = self.state.decode
        if is_chat or self.state.dialect == "llama":
            entries = [
                {"token": decode(i), "bytes": self.state.data(i), "logprob": v} | ({} if is_chat else {"id": i})
                for i, v in tops.items()
            ]
            own = {"token": decode(token), "bytes": self.state.data(token), "logprob": logprob}
            own |= {"top_logprobs": entries} | ({} if is_chat else {"id": token})
            text = {"delta": {"content": decode(token)}} if is_chat else {"text": decode(token)}
            return {**text, "logprobs": {"content": [own]}}
        is_vllm = self.state.dialect == "vllm"
        shown = (lambda i: f"token_id:{i}") if is_vllm else decode
        told = {
            "text": decode(token),
            "logprobs": {
                "tokens": [shown(token)],
                "token_logprobs": [logprob, -1.0] if fault == "unaligned" else [logprob],
                "top_logprobs": [{shown(i): v for i, v in tops.items()}],
            },
        }
        return told | ({"token_ids": [token]} if is_vllm else {})

    def _misbehaves_within(self, fault: str | None, count: int, piece: dict[str, Any]) -> bool:
        """Send one piece of a stream; return whether it goes on."""
        if count == 2:
            match fault:
                case "close":
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return False
                case "truncated":
                    self._raw(b"data: " + json.dumps(piece).encode()[:40] + b"\n\n")
                    self._raw(b"")
                    return False
                case "stall":
                    time.sleep(HANG_SECONDS)
                    self.close_connection = True
                    return False
        return self._piece(piece)

    def _score(self, ids: list[int], body: dict[str, Any]) -> None:
        num_top = body["prompt_logprobs"]
        entries: list[dict[str, Any] | None] = [None]
        for token, row in zip(ids[1:], self.state.score(ids), strict=True):
            wanted = {token, *row.topk(num_top).indices.tolist()} if num_top else {token}
            entries.append({str(i): {"logprob": float(row[i])} for i in sorted(wanted)})
        told = None if self.state.dialect != "vllm" else entries
        self._answer({"model": self.state.name, "choices": [{"index": 0, "text": "", "prompt_logprobs": told}]})

    # ---- HTTP

    def _start_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _piece(self, piece: dict[str, Any]) -> bool:
        return self._raw(b"data: " + json.dumps(piece).encode() + b"\n\n")

    def _raw(self, data: bytes) -> bool:
        try:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        except OSError:
            with self.state.lock:
                self.state.num_broken_off += 1
            self.close_connection = True
            return False
        return True

    def _answer(self, told: Any) -> None:
        self._send(200, json.dumps(told).encode(), "application/json")

    def _refuse(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        self._send(code, json.dumps({"error": {"message": message}}).encode(), "application/json", headers)

    def _send(self, code: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # a client that went away is no news
            super().handle_error(request, client_address)


def main(arguments: Sequence[str], tell: Callable[[int], object]) -> None:
    """Serve until killed, after telling the port."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dialect", default="vllm")
    parser.add_argument("--name", default="lab")
    parser.add_argument("--key", default="")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args(arguments)
    Handler.state = State(args.folder, args.dialect, args.name, args.key)
    server = Server(("127.0.0.1", args.port), Handler)
    tell(server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:], lambda port: print(port, flush=True))  # noqa: T201  what starts it reads that
