import json
from pathlib import Path

import pytest

from heal_core.engines.base import EngineConfig
from heal_core.engines.server_config import LaunchConfig
from heal_core.engines.vllm.command import serve_command, serve_environment
from heal_core.engines.vllm.program import VllmProgram
from heal_core.errors import ConfigError

GPU_BUILD = VllmProgram(("vllm", "serve"), "0.32.0", is_for_cpu=False)
CPU_BUILD = VllmProgram(("vllm", "serve"), "0.32.0", is_for_cpu=True)
SOCKET = Path("/run/socket")


def config(*, launch: LaunchConfig | None = None, **settings: object) -> EngineConfig:
    return EngineConfig(model_name_or_path="owner/name", engine="vllm", launch=launch, **settings)


def model_folder(folder: Path, **settings: object) -> Path:
    (folder / "config.json").write_text(json.dumps(settings))
    return folder


def value_of(command: list[str], option: str) -> str:
    """Return the last value, as argparse takes it."""
    return command[len(command) - command[::-1].index(option)]


def test_the_folder_follows_the_program_and_own_arguments_come_last(tmp_path: Path) -> None:
    launch = LaunchConfig(args=("--block-size", "64", "--load-format", "dummy"), top_logprobs=50)
    command = serve_command(CPU_BUILD, config(launch=launch), model_folder(tmp_path), SOCKET)
    assert command[:3] == ["vllm", "serve", str(tmp_path)]
    assert value_of(command, "--uds") == str(SOCKET)
    assert value_of(command, "--max-logprobs") == "50"
    assert value_of(command, "--block-size") == "64"
    assert value_of(command, "--load-format") == "dummy"


def test_on_cpus_no_prompt_is_read_in_pieces(tmp_path: Path) -> None:
    short = serve_command(CPU_BUILD, config(), model_folder(tmp_path, max_position_embeddings=1024), SOCKET)
    assert "--no-enable-chunked-prefill" in short
    assert value_of(short, "--max-model-len") == value_of(short, "--max-num-batched-tokens") == "1024"
    long = serve_command(CPU_BUILD, config(), model_folder(tmp_path, max_position_embeddings=32768), SOCKET)
    assert value_of(long, "--max-model-len") == value_of(long, "--max-num-batched-tokens") == "4096"
    assert "--max-model-len" not in serve_command(GPU_BUILD, config(), tmp_path, SOCKET)


def test_auto_is_the_precision_of_the_weights(tmp_path: Path) -> None:
    # vLLM's own auto makes bfloat16 of float32
    float32 = model_folder(tmp_path, torch_dtype="float32")
    assert value_of(serve_command(GPU_BUILD, config(), float32, SOCKET), "--dtype") == "float32"
    assert value_of(serve_command(GPU_BUILD, config(dtype="bfloat16"), float32, SOCKET), "--dtype") == "bfloat16"
    nested = model_folder(tmp_path, text_config={"dtype": "bfloat16"})
    assert value_of(serve_command(GPU_BUILD, config(), nested, SOCKET), "--dtype") == "bfloat16"
    unknown = model_folder(tmp_path)
    assert value_of(serve_command(GPU_BUILD, config(), unknown, SOCKET), "--dtype") == "auto"


def test_code_of_a_model_is_run_only_where_that_is_asked_for(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    assert "--trust-remote-code" not in serve_command(GPU_BUILD, config(), folder, SOCKET)
    assert "--trust-remote-code" in serve_command(GPU_BUILD, config(trust_remote_code=True), folder, SOCKET)


def test_replicas_share_out_the_gpus() -> None:
    launch = LaunchConfig(replicas=2)
    seen = [
        serve_environment(GPU_BUILD, config(launch=launch), replica, {"CUDA_VISIBLE_DEVICES": "4,5,6,7"})
        for replica in range(2)
    ]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in seen] == ["4,5", "6,7"]
    with pytest.raises(ConfigError, match=r"launch\.replicas is 2, but there are 1 GPUs"):
        serve_environment(GPU_BUILD, config(launch=launch), 0, {"CUDA_VISIBLE_DEVICES": "4"})
    alone = serve_environment(GPU_BUILD, config(), 0, {"CUDA_VISIBLE_DEVICES": "4,5"})
    assert alone["CUDA_VISIBLE_DEVICES"] == "4,5"


def test_replicas_share_out_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process_id: {0, 1, 2, 3, 8})

    def cores(replicas: int, **settings: object) -> list[str]:
        launch = LaunchConfig(replicas=replicas)
        return [
            serve_environment(CPU_BUILD, config(launch=launch, **settings), replica, {})["VLLM_CPU_OMP_THREADS_BIND"]
            for replica in range(replicas)
        ]

    assert cores(1) == ["0,1,2,3,8"]
    assert cores(1, num_threads=2) == ["0,1"]
    assert cores(2) == ["0,1", "2,3"]
    assert cores(6) == ["0", "1", "2", "3", "8", "0"]  # more replicas than cores share some


def test_several_processes_of_one_server_share_out_the_cores_themselves() -> None:
    launch = LaunchConfig(args=("--tensor-parallel-size=2",))
    assert "VLLM_CPU_OMP_THREADS_BIND" not in serve_environment(CPU_BUILD, config(launch=launch), 0, {})


def test_neither_keys_nor_paths_of_heal_reach_the_server() -> None:
    launch = LaunchConfig(environment={"VLLM_CPU_KVCACHE_SPACE": "7"})
    inherited = {"HEAL_API_KEY": "planted", "PYTHONPATH": "/heal", "HOME": "/home/user"}
    found = serve_environment(CPU_BUILD, config(launch=launch), 0, inherited)
    assert "planted" not in found.values()
    assert "PYTHONPATH" not in found
    assert (found["HOME"], found["VLLM_CPU_KVCACHE_SPACE"], found["DO_NOT_TRACK"]) == ("/home/user", "7", "1")
