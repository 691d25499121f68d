"""What a server streams -> a completion, where servers differ."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from heal_core.engines.base import EngineConfig, EngineDescription, GenerationRequest, SamplingConfig, ScoreRequest
from heal_core.engines.remote.client import Client
from heal_core.engines.remote.completions import Asking, CompletionsApi
from heal_core.engines.remote.engine import OpenAiEngine
from heal_core.engines.remote.faults import NonsenseError
from heal_core.engines.remote.secret import Secret
from heal_core.engines.server_config import ServerConfig
from heal_core.engines.tokens import ModelTokens, load_tokenizer
from heal_core.errors import EngineStalledError
from heal_core.records import Completion, FinishReason

URL = "http://127.0.0.1:9/v1"
END = 1  # ends a turn of the lab's teacher


@pytest.fixture(scope="module")
def api(lab_teacher: Path) -> CompletionsApi:
    tokenizer = load_tokenizer(EngineConfig(model_name_or_path=str(lab_teacher)), lab_teacher)
    description = EngineDescription("m", "none", "none", "openai", "as served", 512, 778, frozenset())
    return CompletionsApi(ModelTokens(tokenizer, description, frozenset({END})), Asking("m", 2, True, {}))


def client_of(body: bytes) -> Client:
    client = Client(URL, Secret(ServerConfig(base_url=URL)), 5.0, 5.0, 1)
    client._http = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(200, content=body)))
    return client


def complete(api: CompletionsApi, ids: Sequence[int], finish: str, logprob: float = -0.7) -> Completion:
    logprobs = {
        "tokens": [f"token_id:{i}" for i in ids],
        "token_logprobs": [logprob] * len(ids),
        "top_logprobs": [{f"token_id:{i}": -0.7, "token_id:9": -0.8} for i in ids],
    }
    piece = {"model": "m", "choices": [{"finish_reason": finish, "token_ids": [*ids], "logprobs": logprobs}]}
    body = f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n".encode()
    request = GenerationRequest("slot", "prompt", max_tokens=4)
    return asyncio.run(api.complete(client_of(body), request, (5, 6), SamplingConfig(), lambda: None))


@pytest.mark.parametrize(
    ("ids", "finish", "num_kept", "reason"),
    [
        ((20, 21, END), "stop", 2, FinishReason.STOP),
        ((20, 21), "stop", 2, FinishReason.STOP),  # a server that leaves it out
        ((20, 21, 22, END), "length", 3, FinishReason.STOP),  # at the very limit, which hf calls the end
        ((20, END, 21, 22), "length", 1, FinishReason.STOP),  # a server that does not know it went on behind it
        ((20, 21, 22, 23), "length", 4, FinishReason.LENGTH),
        ((END,), "stop", 0, FinishReason.STOP),
    ],
)
def test_a_text_ends_where_its_turn_ends(
    api: CompletionsApi, ids: tuple[int, ...], finish: str, num_kept: int, reason: FinishReason
) -> None:
    completion = complete(api, ids, finish)
    assert completion.token_ids.tolist() == list(ids[:num_kept])
    assert len(completion.logprobs) == len(completion.entropies) == len(completion.token_starts) == num_kept
    assert completion.finish_reason is reason


def test_a_probability_of_zero_is_none_of_a_token_that_was_sampled_or_given(api: CompletionsApi) -> None:
    """-9999 is what servers write for it."""
    with pytest.raises(NonsenseError, match="probability 0"):
        complete(api, (20, 21), "stop", logprob=-9999.0)
    request = ScoreRequest("one", "prompt", token_ids=(20,))

    def score(entry: dict[str, Any]) -> Any:
        told = {"model": "m", "choices": [{"prompt_logprobs": [None, entry]}]}
        return asyncio.run(api.score(client_of(json.dumps(told).encode()), request, (5, 20), 1, 2))

    with pytest.raises(NonsenseError):
        score({"20": {"logprob": -9999.0}, "9": {"logprob": -0.1}})
    # 0.9 for the given token, another that is impossible: 0.1 is missing, which adds at most 0.1 * ln(777 / 0.1)
    result = score({"20": {"logprob": -0.10536}, "9": {"logprob": -9999.0}})
    assert float(result.entropies[0] - result.entropy_radii[0]) < 0.4
    assert float(result.entropies[0] + result.entropy_radii[0]) < 1.1


def test_whether_a_server_is_vllm_is_asked_until_it_is_known(
    lab_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests, and so texts, depend on it: a fault that passes is no answer."""
    faults = [503, 500]
    bodies: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/models":
            return httpx.Response(200, json={"data": [{"id": "m", "max_model_len": 512}]})
        bodies.append(request.url.path)
        return httpx.Response(faults.pop(0)) if faults else httpx.Response(200, json={"version": "0.32.0"})

    monkeypatch.setattr(httpx, "AsyncHTTPTransport", lambda **settings: httpx.MockTransport(answer))
    config = EngineConfig(model_name_or_path=str(lab_teacher), engine="openai", server=ServerConfig(base_url=URL))
    engine = OpenAiEngine(config, socket_paths=["none"])  # so that it takes a transport of its own
    try:
        assert engine.description.context_tokens == 512
        assert isinstance(engine._api, CompletionsApi)
        assert engine._api._asking.is_vllm
        assert bodies == ["/version"] * 3
    finally:
        engine.close()


def test_a_list_of_models_that_is_none_is_told(lab_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=["m"]))
    monkeypatch.setattr(httpx, "AsyncHTTPTransport", lambda **settings: transport)
    config = EngineConfig(
        model_name_or_path=str(lab_teacher), engine="openai", server=ServerConfig(base_url=URL), stall_seconds=0.1
    )
    engine = OpenAiEngine(config, socket_paths=["none"])  # so that it takes a transport of its own
    try:
        with pytest.raises(EngineStalledError, match="no list of models"):
            _ = engine.description
    finally:
        engine.close()
