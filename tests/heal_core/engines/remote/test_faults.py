"""A server that misbehaves, for real and over HTTP: nothing is lost, nothing comes twice, nothing is made up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from heal_core.engines.base import Capability, EngineConfig, GenerationRequest, GivenText, SamplingConfig, ScoreRequest
from heal_core.engines.remote.engine import OpenAiEngine
from heal_core.errors import ConfigError, EngineStalledError, RequestError
from heal_core.prompts import student_prompt
from heal_core.records import FinishReason

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("misbehaving-server")]

PROMPT = student_prompt("Start with 3. Add 4. What is the result?")
GREEDY = SamplingConfig(temperature=0.0)
KEY = "sk-planted-0123456789"


def requests(num: int, max_tokens: int = 8) -> list[GenerationRequest]:
    return [GenerationRequest(f"slot-{index}", PROMPT, (), max_tokens) for index in range(num)]


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def server(stack: ExitStack, serve_model: Callable[..., Any], lab_teacher: Path) -> Any:
    return stack.enter_context(serve_model(lab_teacher))


@pytest.fixture(autouse=True)
def behave(server: Any) -> None:
    server.fail()


class States:
    """Keeps what an engine said of its servers."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(self, state: str) -> None:
        self.told.append(state)


def engine_of(folder: Path, url: str | tuple[str, ...], states: Callable[[str], None] = print, **settings: Any) -> Any:
    own = {name: settings.pop(name) for name in ("stall_seconds", "call_seconds") if name in settings}
    defaults = {"silence_seconds": 2.0, "request_seconds": 20.0, "max_concurrency": 2}
    server = {"base_url": url, **defaults, **settings}
    return closing(
        OpenAiEngine(EngineConfig(model_name_or_path=str(folder), engine="openai", server=server, **own), states)
    )


@pytest.fixture(scope="module")
def undisturbed(server: Any, lab_teacher: Path) -> list[int]:
    """Return the tokens that the server gives when all is well."""
    server.fail()
    with engine_of(lab_teacher, server.url) as engine:
        (completion,) = engine.generate(requests(1), GREEDY)
    ids: list[int] = completion.token_ids.tolist()
    return ids


@pytest.mark.parametrize(
    "fault",
    [
        "429",
        "429 date",
        "500",
        "503",
        "html",
        "reset",
        "hang",
        "stall",
        "close",
        "truncated",
        "count",
        "nan",
        "unaligned",
    ],
)
def test_a_fault_costs_a_try_and_no_row(fault: str, server: Any, lab_teacher: Path, undisturbed: list[int]) -> None:
    server.fail(fault)
    with engine_of(lab_teacher, server.url) as engine:
        completions = list(engine.generate(requests(3), GREEDY))
    assert sorted(completion.slot_id for completion in completions) == ["slot-0", "slot-1", "slot-2"]
    for completion in completions:
        assert completion.token_ids.tolist() == undisturbed


def test_what_always_fails_is_told_after_all_others_came(server: Any, lab_teacher: Path) -> None:
    server.fail(*["nan"] * 2)
    with engine_of(lab_teacher, server.url, max_tries=2, max_concurrency=1) as engine:
        stream = engine.generate(requests(4), GREEDY)
        completions = []
        with pytest.raises(RequestError, match=r"slot-0: failed 2 times, the last time at .*no JSON"):
            completions += stream
    # the first request met both faults
    assert sorted(completion.slot_id for completion in completions) == ["slot-1", "slot-2", "slot-3"]
    with engine_of(lab_teacher, server.url, max_concurrency=1) as engine:
        assert len(list(engine.generate(requests(1), GREEDY))) == 1


def test_a_model_of_another_name_ends_the_call(server: Any, lab_teacher: Path) -> None:
    server.fail(always="model")
    with (
        engine_of(lab_teacher, server.url) as engine,
        pytest.raises(ConfigError, match=r"'lab' and answers as 'another"),
    ):
        list(engine.generate(requests(2), GREEDY))


def test_a_server_that_only_fails_is_left_alone_and_given_up(server: Any, lab_teacher: Path) -> None:
    states = States()
    with engine_of(lab_teacher, server.url, states, stall_seconds=5, max_tries=100, max_concurrency=8) as engine:
        assert len(list(engine.generate(requests(1), GREEDY))) == 1
        num_before = len(server.seen["requests"])
        server.fail(always="500")
        began = time.monotonic()
        with pytest.raises(EngineStalledError, match=r"no good answer for 5 s: .*HTTP 500: Internal error"):
            list(engine.generate(requests(8), GREEDY))
        assert time.monotonic() - began < 60
    assert any("tried again at" in state for state in states.told)
    num_asked = len(server.seen["requests"]) - num_before
    assert num_asked < 30, "a breaker that is open asks now and then, not all the time"


def test_a_server_that_recovers_is_used_again(server: Any, lab_teacher: Path) -> None:
    states = States()
    server.fail(*["500"] * 6)
    with engine_of(lab_teacher, server.url, states, stall_seconds=60, max_tries=10, max_concurrency=4) as engine:
        assert len(list(engine.generate(requests(8), GREEDY))) == 8
    assert states.told[-1] == "", "all is well again"
    assert any("HTTP 500" in state for state in states.told)


def test_a_busy_server_is_asked_again_when_it_said(server: Any, lab_teacher: Path) -> None:
    states = States()
    server.fail("429", "429")
    with engine_of(lab_teacher, server.url, states, max_tries=1, max_concurrency=1) as engine:
        began = time.monotonic()
        assert len(list(engine.generate(requests(2), GREEDY))) == 2  # being busy is not a failure
    assert time.monotonic() - began >= 2
    assert any("is busy (HTTP 429: Rate limit reached)" in state for state in states.told)


def test_leaving_early_breaks_off_the_requests(server: Any, lab_teacher: Path) -> None:
    before = server.seen["broken_off"]
    # several long ones at a time: on a busy machine a single one may have come to its end before the short one is read
    with engine_of(lab_teacher, server.url, max_concurrency=4) as engine:
        stream = engine.generate(
            [*requests(1, 1), *(GenerationRequest(f"long-{i}", PROMPT, (), 400) for i in range(8))],
            SamplingConfig(temperature=2.0, top_p=1.0),
        )
        next(stream)
        stream.close()
        deadline = time.monotonic() + 30
        while server.seen["broken_off"] == before and time.monotonic() < deadline:
            time.sleep(0.2)
    assert server.seen["broken_off"] > before
    assert len([r for r in server.seen["requests"] if r["max_tokens"] == 400]) <= 6, (
        "those that waited were never asked"
    )


def test_two_servers_share_the_work_and_one_is_enough(
    server: Any, stack: ExitStack, serve_model: Callable[..., Any], lab_teacher: Path
) -> None:
    with ExitStack() as own:
        second = own.enter_context(serve_model(lab_teacher))
        num_before = len(server.seen["requests"])
        with engine_of(lab_teacher, (server.url, second.url), max_tries=3) as engine:
            wanted = [GenerationRequest(f"slot-{i}", f"{PROMPT} {i}", (), 8) for i in range(12)]
            assert len(list(engine.generate(wanted, GREEDY))) == 12
            shares = len(server.seen["requests"]) - num_before, len(second.seen["requests"])
            assert min(shares) >= 2, "each is given what it takes at once; the rest goes to whichever is quicker"
            second.kill()
            assert len(list(engine.generate(wanted, GREEDY))) == 12


def test_the_key_is_sent_and_never_shown(
    stack: ExitStack, serve_model: Callable[..., Any], lab_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = stack.enter_context(serve_model(lab_teacher, "--key", KEY))
    monkeypatch.setenv("HEAL_API_KEY", KEY)
    with engine_of(lab_teacher, locked.url) as engine:
        assert len(list(engine.generate(requests(1), GREEDY))) == 1
        assert KEY not in repr(vars(engine)) + repr(engine.description)
    monkeypatch.setenv("HEAL_API_KEY", f"{KEY}-wrong")
    with engine_of(lab_teacher, locked.url) as engine, pytest.raises(ConfigError) as caught:
        list(engine.generate(requests(1), GREEDY))
    # the server repeats the key in its answer
    assert "Incorrect API key provided: Bearer [redacted]" in str(caught.value)
    assert KEY not in str(caught.value)
    assert "HEAL_API_KEY" in str(caught.value)


def test_a_server_that_is_not_there_is_named(lab_teacher: Path) -> None:
    states = States()
    with (
        engine_of(lab_teacher, "http://127.0.0.1:9/v1", states, stall_seconds=1) as engine,
        pytest.raises(EngineStalledError, match=r"no server of .* can be reached: http://127.0.0.1:9/v1"),
    ):
        _ = engine.description
    assert "does not answer" in states.told[0], "it is told while HEAL still waits for it"
    assert states.told[0].startswith("http://127.0.0.1:9/v1 does not answer (ConnectError")


def test_a_url_without_v1_is_answered_with_the_remedy(server: Any, lab_teacher: Path) -> None:
    with (
        engine_of(lab_teacher, server.url.removesuffix("/v1")) as engine,
        pytest.raises(ConfigError, match="under /v1"),
    ):
        _ = engine.description


def test_a_model_that_is_not_served_is_named_with_those_that_are(server: Any, lab_teacher: Path) -> None:
    with engine_of(lab_teacher, server.url, model="other") as engine, pytest.raises(ConfigError, match="only lab; set"):
        _ = engine.description


def test_the_chat_api_samples_and_can_do_nothing_else(server: Any, lab_teacher: Path) -> None:
    with engine_of(lab_teacher, server.url, api="chat", vocabulary_size=778) as engine:
        assert engine.description.capabilities == {Capability.GENERATE}
        (completion,) = engine.generate(requests(1, 30), GREEDY)
        with pytest.raises(ConfigError, match="reads no given texts"):
            list(engine.score([ScoreRequest("one", PROMPT, token_ids=(5,))]))
        with pytest.raises(ConfigError):
            list(engine.read([GivenText("one", PROMPT, "text", FinishReason.STOP)]))
        with pytest.raises(RequestError, match="cannot continue"):
            list(engine.generate([GenerationRequest("two", PROMPT, (5, 6), 8)], GREEDY))
    with engine_of(lab_teacher, server.url) as engine:
        (same,) = engine.generate(requests(1, 30), GREEDY)
    assert completion.text == same.text
    assert completion.token_starts.tolist() == same.token_starts.tolist()
    assert set(completion.token_ids.tolist()) == {-1}
    assert completion.num_prompt_tokens == same.num_prompt_tokens


def test_what_a_server_refuses_concerns_that_request_alone(server: Any, lab_teacher: Path) -> None:
    # the server's context is 512 tokens, the model's own 1,024: the server says so when it is asked what it serves
    with engine_of(lab_teacher, server.url) as engine:
        assert engine.description.context_tokens == 512
        with pytest.raises(RequestError, match="the context of 512"):
            list(engine.generate(requests(1, 600), GREEDY))


def test_prompt_tokens_that_were_cached_are_counted(server: Any, lab_teacher: Path) -> None:
    with engine_of(lab_teacher, server.url, max_concurrency=1) as engine:
        wanted = [GenerationRequest(f"slot-{i}", "A prompt of its own.", (), 2) for i in range(3)]
        first, *others = engine.generate(wanted, GREEDY)
    assert first.num_cached_tokens == 0
    assert [other.num_cached_tokens for other in others] == [first.num_prompt_tokens - 1] * 2
