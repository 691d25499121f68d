import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from heal_core.children import start_child
from heal_core.engines.base import Capability, EngineConfig, GenerationRequest, SamplingConfig, ScoreRequest
from heal_core.engines.hf import Alive, Call, Done, HfEngine, Item, Ready
from heal_core.errors import EngineStalledError, HealError, ModelError
from heal_core.prompts import student_prompt

pytestmark = pytest.mark.slow

LAB = Path(__file__).parents[3] / "deployments" / "lab"
PROMPTS = [
    student_prompt(json.loads(line)["problem"]) for line in (LAB / "development.jsonl").read_text().splitlines()[:4]
]
SAMPLING = SamplingConfig()


def config(**settings: object) -> EngineConfig:
    return EngineConfig(model_name_or_path=str(LAB / "teacher"), num_threads=1, **settings)


def requests(num_samples: int = 2, max_tokens: int = 30) -> list[GenerationRequest]:
    return [
        GenerationRequest(f"{index}-{sample}", prompt, (), max_tokens)
        for index, prompt in enumerate(PROMPTS)
        for sample in range(num_samples)
    ]


def is_running(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def child_id(engine: HfEngine) -> int:
    _ = engine.description  # waits until it is loaded
    assert engine._process is not None
    return engine._process.pid


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HfEngine]:
    with HfEngine(config(stall_seconds=60, batch_size=4), tmp_path_factory.mktemp("logs") / "engine.log") as engine:
        yield engine


def test_the_protocol_is_served_by_a_child(engine: HfEngine) -> None:
    assert engine.description.capabilities == set(Capability)
    completions = {c.slot_id: c for c in engine.generate(requests(), SAMPLING)}
    assert completions.keys() == {r.slot_id for r in requests()}
    one = completions["0-1"]
    (scored,) = engine.score([ScoreRequest("s", PROMPTS[0], token_ids=tuple(one.token_ids.tolist()))])
    assert scored.logprobs == pytest.approx(one.logprobs, abs=1e-4)
    assert engine.count_prompt_tokens([PROMPTS[0]]) == [one.num_prompt_tokens]
    assert engine.count_prompt_tokens([]) == []
    assert list(engine.generate([], SAMPLING)) == []


def test_the_parent_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from heal_core.engines.hf import HfEngine; from heal_core.engines.base import EngineConfig;"
        f"HfEngine(EngineConfig(model_name_or_path={str(LAB / 'teacher')!r}));"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_leaving_a_call_early_keeps_the_child(engine: HfEngine) -> None:
    before = child_id(engine)
    stream = engine.generate(requests(num_samples=64, max_tokens=400), SAMPLING)
    next(stream)
    stream.close()
    assert engine.count_prompt_tokens(["x"])[0] > 0
    assert child_id(engine) == before


def test_two_calls_at_once_are_refused(engine: HfEngine) -> None:
    stream = engine.generate(requests(), SAMPLING)
    next(stream)
    with pytest.raises(HealError, match="busy"):
        engine.count_prompt_tokens(["x"])
    assert len(list(stream)) == len(requests()) - 1


def test_errors_of_the_child_keep_their_type_and_the_child_lives(engine: HfEngine) -> None:
    before = child_id(engine)
    with pytest.raises(ModelError, match="more than the context"):
        list(engine.generate(requests(max_tokens=engine.description.context_tokens), SAMPLING))
    assert len(list(engine.generate(requests(), SAMPLING))) == len(requests())
    assert child_id(engine) == before


def test_completions_come_before_the_call_ends_a_killed_child_is_reported_and_the_next_call_works(
    engine: HfEngine,
) -> None:
    expected = {c.slot_id: c.text for c in engine.generate(requests(), SAMPLING)}
    before = child_id(engine)
    stream = engine.generate(requests(num_samples=64, max_tokens=400), SAMPLING)
    next(stream)
    os.kill(before, signal.SIGKILL)
    with pytest.raises(EngineStalledError, match="exit code -9"):
        list(stream)
    assert {c.slot_id: c.text for c in engine.generate(requests(), SAMPLING)} == expected
    assert child_id(engine) != before


def test_an_error_that_is_not_heals_own_ends_the_child_and_shows_its_log(engine: HfEngine) -> None:
    before = child_id(engine)
    with pytest.raises(EngineStalledError, match="AttributeError: 'int' object has no attribute 'prompt'"):
        list(engine.score([3]))  # type: ignore[list-item]
    assert not is_running(before)
    assert engine.count_prompt_tokens(["x"])[0] > 0


def test_a_silent_child_is_killed() -> None:
    with HfEngine(config(stall_seconds=2)) as engine:
        stream = engine.generate(requests(num_samples=64, max_tokens=400), SAMPLING)
        next(stream)
        process_id = child_id(engine)
        os.kill(process_id, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(EngineStalledError, match="no sign of life for 2 s"):
            list(stream)
        assert time.monotonic() - started < 20
        assert not is_running(process_id)


def test_the_worker_shows_signs_of_life_between_results() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "heal_core.engines.worker", str(theirs.fileno())]
        worker = start_child(command, pass_fds=(theirs.fileno(),))
    with Connection(ours.detach()) as connection:
        connection.send((config(batch_size=256), LAB / "teacher"))
        assert isinstance(connection.recv(), Ready)
        # seconds of work in one batch
        connection.send(Call("generate", (requests(num_samples=64, max_tokens=200), SAMPLING)))
        messages = []
        while not messages or not isinstance(messages[-1], Done):
            messages.append(connection.recv())
        assert sum(isinstance(message, Item) for message in messages) == 256
        assert any(isinstance(message, Alive) for message in messages)
    assert worker.wait(30) == 0  # the parent hung up


def test_a_call_that_takes_too_long_is_ended_and_the_next_starts_a_fresh_child() -> None:
    with HfEngine(config(call_seconds=0.3, batch_size=256)) as engine:
        _ = engine.description
        process_id = child_id(engine)
        with pytest.raises(EngineStalledError, match=r"was not done with generate after 0\.3 s"):
            list(engine.generate(requests(num_samples=64, max_tokens=200), SAMPLING))
        assert not is_running(process_id)
        assert engine.count_prompt_tokens(["a"]) == [engine.count_prompt_tokens(["a"])[0]]
        assert child_id(engine) != process_id


def test_the_child_dies_with_its_parent() -> None:
    code = (
        "import time; from heal_core.engines.hf import HfEngine; from heal_core.engines.base import EngineConfig;"
        f"engine = HfEngine(EngineConfig(model_name_or_path={str(LAB / 'teacher')!r}, num_threads=1));"
        "engine.description; print(engine._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    process_id = int(parent.stdout.readline())
    assert is_running(process_id)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while is_running(process_id) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(process_id)


def test_close_ends_the_child_and_may_be_repeated() -> None:
    engine = HfEngine(config())
    engine.close()
    assert engine.description.vocabulary_size > 0
    process_id = child_id(engine)
    stream = engine.generate(requests(), SAMPLING)
    next(stream)
    engine.close()
    engine.close()
    assert not is_running(process_id)
    with pytest.raises(HealError, match="closed during a call"):
        list(stream)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing/here/at/all"])
def test_a_missing_folder_is_reported_at_once(name: str) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        HfEngine(EngineConfig(model_name_or_path=name))


def test_a_folder_without_a_tokenizer_is_reported_at_once(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(LAB / "teacher", tmp_path / "teacher"))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="expected a tokenizer"):
        HfEngine(EngineConfig(model_name_or_path=str(folder)))


def test_damaged_weights_are_reported_at_first_use(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(LAB / "teacher", tmp_path / "teacher"))
    (folder / "model.safetensors").write_bytes(b"no weights")
    with HfEngine(EngineConfig(model_name_or_path=str(folder))) as engine, pytest.raises(ModelError):
        _ = engine.description
