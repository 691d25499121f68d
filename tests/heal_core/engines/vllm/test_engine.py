"""The engine vllm with real servers on the lab's teacher, where `make vllm` has been run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from heal_core.engines.base import (
    Completion,
    EngineConfig,
    EngineDescription,
    GenerationRequest,
    SamplingConfig,
    ScoreRequest,
)
from heal_core.engines.hf import HfEngine
from heal_core.engines.identity import digest_files, identify_engine
from heal_core.engines.server_config import LaunchConfig
from heal_core.engines.vllm.engine import VllmEngine
from heal_core.errors import EngineStalledError, ModelError
from heal_core.prompts import student_prompt

ROOT = Path(__file__).parents[4]
TEACHER = ROOT / "deployments" / "lab" / "teacher"
PROMPTS = [
    student_prompt(json.loads(line)["problem"])
    for line in (ROOT / "deployments/lab/development.jsonl").read_text().splitlines()[:8]
]
SMALL = {"args": ("--enforce-eager",), "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"}}
"""A server that starts without compiling, and takes little memory."""


pytestmark = [pytest.mark.full, pytest.mark.usefixtures("vllm_installed")]


def config(*, replicas: int = 1, **settings: object) -> EngineConfig:
    launch = LaunchConfig(replicas=replicas, **{**SMALL, **settings})
    return EngineConfig(model_name_or_path=str(TEACHER), engine="vllm", launch=launch, stall_seconds=300)


def requests(num_samples: int, max_tokens: int = 40, tag: str = "") -> list[GenerationRequest]:
    return [
        GenerationRequest(f"{tag}{index}-{sample}", prompt, (), max_tokens)
        for index, prompt in enumerate(PROMPTS)
        for sample in range(num_samples)
    ]


def num_finished(socket: str) -> int:
    """Return how many requests a server has finished, as it counts them itself."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket)) as client:
        lines = client.get("http://vllm/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("vllm:request_success_total"))


def processes_below(process_id: int) -> dict[int, str]:
    """Return the processes under one, with their names."""
    found = {}
    pending = [process_id]
    for current in pending:
        for children in Path(f"/proc/{current}").glob("task/*/children"):
            for child in map(int, children.read_text().split()):
                found[child] = Path(f"/proc/{child}/comm").read_text().strip()
                pending.append(child)
    return found


def is_running(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmEngine]:
    with VllmEngine(config(replicas=2), tmp_path_factory.mktemp("logs") / "engine.log") as engine:
        yield engine


def test_it_says_what_it_serves(engine: VllmEngine) -> None:
    found = engine.description
    assert isinstance(found, EngineDescription)
    assert found.weight_digest == digest_files(TEACHER)
    assert found.engine == identify_engine(engine.config)["engine"]
    assert (found.dtype, found.context_tokens) == ("float32", 1024)


def test_two_servers_are_used_together(engine: VllmEngine) -> None:
    _ = engine.description
    before = [num_finished(socket) for socket in engine.socket_paths]
    found = list(engine.generate(requests(16), SamplingConfig(temperature=1.0)))
    done = [num_finished(socket) - b for socket, b in zip(engine.socket_paths, before, strict=True)]
    assert len({completion.slot_id for completion in found}) == len(found) == 128
    assert sum(done) == 128
    assert min(done) >= 16, done


def test_a_prefix_is_computed_once_per_server(engine: VllmEngine) -> None:
    prefix = tuple(first(engine, "prefix").token_ids.tolist())[:20]
    asked = [GenerationRequest(f"cached-{n}", PROMPTS[1], prefix, 8) for n in range(12)]
    found = list(engine.generate(asked, SamplingConfig()))
    (num_prompt,) = {completion.num_prompt_tokens for completion in found}
    whole_blocks = (num_prompt - 1) // 32 * 32
    cached = [completion.num_cached_tokens for completion in found]
    assert whole_blocks > 0
    # at most one request per server finds nothing, besides those that were asked at the same time as it
    assert cached.count(whole_blocks) >= len(cached) // 2, cached


def first(engine: VllmEngine, tag: str) -> Completion:
    return next(iter(engine.generate([GenerationRequest(tag, PROMPTS[1], (), 40)], SamplingConfig())))


def test_scores_are_those_of_hf(engine: VllmEngine) -> None:
    sampled = list(engine.generate(requests(2, tag="scored-"), SamplingConfig(temperature=1.0)))
    asked = [
        ScoreRequest(c.slot_id, PROMPTS[int(c.slot_id.split("-")[1])], token_ids=tuple(c.token_ids.tolist()))
        for c in sampled
    ]
    served = {result.request_id: result.logprobs for result in engine.score(asked)}
    with HfEngine(EngineConfig(model_name_or_path=str(TEACHER), dtype="float32", num_threads=1)) as hf:
        exact = {result.request_id: result for result in hf.score(asked)}
    differences = np.concatenate([np.abs(served[name] - result.logprobs) for name, result in exact.items()])
    assert len(differences) > 400
    assert differences.max() < 1e-4, differences.max()
    # what was told while sampling are the same numbers, and the intervals hold the exact entropies
    for completion in sampled:
        result = exact[completion.slot_id]
        np.testing.assert_allclose(completion.logprobs, result.logprobs, atol=1e-4)
        assert result.entropies is not None and completion.entropy_radii is not None
        assert (np.abs(completion.entropies - result.entropies) <= completion.entropy_radii + 1e-4).all()


def test_servers_that_were_killed_are_replaced(engine: VllmEngine) -> None:
    _ = engine.description
    old = engine.socket_paths
    stream = engine.generate(requests(64, 400, tag="killed-"), SamplingConfig(temperature=1.5, top_p=1.0))
    next(stream)
    for server in engine._servers:
        assert server._process is not None
        os.kill(next(iter(processes_below(server._process.pid))), signal.SIGKILL)  # below the guard: the API server
    with pytest.raises(EngineStalledError, match=r"(?s)server died.*end of its log"):
        list(stream)
    found = list(engine.generate(requests(1, tag="fresh-"), SamplingConfig()))
    assert len(found) == len(PROMPTS)
    assert not set(old) & set(engine.socket_paths)


def test_an_argument_that_vllm_refuses_is_told() -> None:
    with (
        VllmEngine(config(args=("--no-such-argument",))) as engine,
        pytest.raises(ModelError, match=r"(?s)could not serve.*no-such-argument"),
    ):
        _ = engine.description


PARENT = """
import sys
from pathlib import Path
from heal_core.engines.base import EngineConfig
from heal_core.engines.vllm.engine import VllmEngine
engine = VllmEngine(EngineConfig.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
_ = engine.description
print("ready", flush=True)
input()
"""


def test_nothing_is_left_of_it_when_heal_is_killed(tmp_path: Path) -> None:
    shared_before = set(Path("/dev/shm").iterdir())
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, config().model_dump_json(), str(tmp_path / "engine.log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n", (tmp_path / "engine.log").read_text()[-2000:]
    below = processes_below(parent.pid)
    assert len(below) >= 4, below  # guard, API server, EngineCore, Worker
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(map(is_running, below)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not {pid: name for pid, name in below.items() if is_running(pid)}
    assert not {path for path in set(Path("/dev/shm").iterdir()) - shared_before if path.name.startswith("psm_")}
