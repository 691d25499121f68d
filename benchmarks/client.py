"""How many tokens per second one HEAL process can take in from servers.

    python -m benchmarks.client

A server in a child process says what vLLM says, each token with its 20 most probable ones, as fast as it is read; no
model works. A piece of the stream holds one token, vLLM's default, or 20 (`vllm serve --stream-interval 20`). Given are
seconds of the processor of HEAL's own process, which a busy machine changes less: tokens / CPU seconds is where the
engine `openai` saturates one core, whatever the GPUs could do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.timing import print_report, spread
from heal_core.engines.base import EngineConfig, GenerationRequest, SamplingConfig
from heal_core.engines.remote.engine import OpenAiEngine
from heal_core.engines.server_config import ServerConfig

MODEL = Path("deployments/lab/teacher")
_FIRST_ID, _LAST_ID = 20, 300  # plain tokens of the lab's vocabulary
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n\r\n"


def _distribution(draw: random.Random, num_top: int) -> dict[str, float]:
    """Return some token names with log-probabilities that leave a thousandth to all other tokens."""
    values = [draw.random() * 20 for _ in range(num_top)]
    total = math.log(sum(map(math.exp, values)) * 1.001)
    names = (f"token_id:{token_id}" for token_id in draw.sample(range(_FIRST_ID, _LAST_ID), num_top))
    return {name: value - total for name, value in zip(names, sorted(values, reverse=True), strict=True)}


def _piece(draw: random.Random, num_top: int, num_tokens: int, is_last: bool = False) -> bytes:
    """Return some tokens as vLLM streams them."""
    tops = [_distribution(draw, num_top) for _ in range(num_tokens)]
    names = [next(iter(top)) for top in tops]
    logprobs = {
        "text_offset": [0] * num_tokens,
        "tokens": names,
        "token_logprobs": [top[name] for top, name in zip(tops, names, strict=True)],
        "top_logprobs": tops,
    }
    choice = {
        "index": 0,
        "text": " word" * num_tokens,
        "logprobs": logprobs,
        "finish_reason": "length" if is_last else None,
        "stop_reason": None,
        "prompt_token_ids": None,
        "token_ids": [int(name.partition(":")[2]) for name in names],
    }
    piece = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": "teacher", "choices": [choice]}
    return b"data: " + json.dumps({**piece, "usage": None}).encode() + b"\n\n"


def serve(num_top: int, num_tokens: int, per_piece: int, ready: Connection) -> None:
    """Serve for ever; tell the port through `ready`."""
    draw = random.Random(0)
    pieces = [_piece(draw, num_top, per_piece) for _ in range(97)]
    last = _piece(draw, num_top, per_piece, is_last=True)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        if path == "/v1/completions":
            length = int(head.lower().partition("content-length:")[2].split()[0])
            asked = json.loads(await reader.readexactly(length))
            num_prompt = len(asked["prompt"])
            writer.write(_HEAD % b"text/event-stream")
            for number in range(num_tokens // per_piece - 1):
                writer.write(pieces[number % len(pieces)])
                await asyncio.sleep(0)  # the streams take turns, as those of a server do
                await writer.drain()
            usage = {"prompt_tokens": num_prompt, "completion_tokens": num_tokens}
            end = {"model": "teacher", "choices": [], "usage": usage}
            writer.write(last + b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n")
        else:
            told: dict[str, Any] = {"version": "0"} if path == "/version" else {"data": [{"id": "teacher"}]}
            writer.write(_HEAD % b"application/json" + json.dumps(told).encode())
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def measure(num_samples: int, num_tokens: int, num_top: int, per_piece: int, num_rounds: int) -> dict[str, Any]:
    """Return tokens per second of HEAL's processor, per round, and what one token weighs on the wire."""
    num_tokens -= num_tokens % per_piece
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=serve, args=(num_top, num_tokens, per_piece, there), daemon=True
    )
    child.start()
    try:
        server = ServerConfig(base_url=f"http://127.0.0.1:{here.recv()}/v1", model="teacher", top_logprobs=num_top)
        config = EngineConfig(model_name_or_path=str(MODEL), engine="openai", server=server)
        rates, walls = [], []
        with OpenAiEngine(config) as engine:
            for number in range(num_rounds + 1):
                requests = [
                    GenerationRequest(f"{number}-{index}", "What is 3 + 4?", max_tokens=num_tokens)
                    for index in range(num_samples)
                ]
                cpu, wall = time.process_time(), time.perf_counter()
                taken = sum(len(sample.token_ids) for sample in engine.generate(requests, SamplingConfig()))
                assert taken == num_samples * num_tokens
                if number:  # the first round opens connections and loads the tokenizer
                    rates.append(taken / (time.process_time() - cpu))
                    walls.append(taken / (time.perf_counter() - wall))
    finally:
        child.kill()
        child.join()
    return {
        "num_samples": num_samples,
        "num_tokens": num_tokens,
        "num_top": num_top,
        "tokens_per_piece": per_piece,
        "bytes_per_token": len(_piece(random.Random(0), num_top, per_piece)) // per_piece,
        "tokens_per_cpu_second": spread(rates),
        "tokens_per_second": spread(walls),
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--per-piece", type=int, nargs="+", default=[1, 20])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    figures = [measure(asked.samples, asked.tokens, asked.top, number, asked.rounds) for number in asked.per_piece]
    print_report("client", {"sides": figures})


if __name__ == "__main__":
    main()
