"""How `vllm serve` is called: arguments and environment, chosen so that HEAL gets what it asks for.

`launch.args` come last and `launch.environment` on top, so that each choice can be overridden. What does not belong
here: which vLLM (`program`), and running it (`server`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from heal_core.engines import gpu
from heal_core.engines.base import EngineConfig
from heal_core.engines.server_config import DEFAULT_KEY_VARIABLE, LaunchConfig
from heal_core.engines.settings import read_settings
from heal_core.engines.vllm.program import VllmProgram
from heal_core.errors import ConfigError

MODEL_NAME = "heal"
KEY_VARIABLE = "VLLM_API_KEY"
"""Where it is set, vLLM asks for it, and is told."""
CPU_BLOCK_TOKENS = 32
"""vLLM's own default on CPUs is 128, and only whole blocks of a prefix are found again; its kernels want multiples of
32 (docs/benchmarks.md, P4)."""
CPU_CONTEXT_TOKENS = 4096
"""A seeded request whose prompt is read in pieces ends vLLM 0.32 on CPUs ("CPU Generator does not use offset"). Where
none is, a step must hold the longest prompt, and memory its log-probabilities."""
_PARALLEL = ("--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp")
_MAX_CACHE_GIB = 4
_GPUS = "CUDA_VISIBLE_DEVICES"
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", DEFAULT_KEY_VARIABLE)


def serve_command(program: VllmProgram, config: EngineConfig, folder: Path, socket: Path) -> list[str]:
    """Return the command that serves the model in `folder` on a unix domain socket."""
    launch = config.launch or LaunchConfig()
    command = [
        *program.command,
        str(folder),
        *("--uds", str(socket)),
        *("--served-model-name", MODEL_NAME),
        *("--dtype", served_dtype(config, folder)),
        *("--load-format", "safetensors"),  # never a pickle
        *("--generation-config", "vllm"),  # else the model's own file changes how tokens are drawn
        *("--logprobs-mode", "raw_logprobs"),  # before temperature and top_p, as `hf` has them
        *("--max-logprobs", str(launch.top_logprobs)),
        "--enable-prefix-caching",
        "--enable-prompt-tokens-details",  # tells how many tokens of a prompt were cached
        "--disable-uvicorn-access-log",
    ]
    if program.is_for_cpu:
        context = min(_context_tokens(folder), CPU_CONTEXT_TOKENS)
        command += [
            *("--block-size", str(CPU_BLOCK_TOKENS)),
            "--no-enable-chunked-prefill",
            *("--max-model-len", str(context)),
            *("--max-num-batched-tokens", str(context)),
        ]
    if config.trust_remote_code:
        command.append("--trust-remote-code")
    return [*command, *launch.args]


def serve_environment(
    program: VllmProgram, config: EngineConfig, replica: int, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Return the environment of one server: this one without what is HEAL's own, keys included.

    Raises:
        ConfigError: If there are fewer GPUs than replicas.
    """
    launch = config.launch or LaunchConfig()
    settings = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if program.is_for_cpu:
        settings |= _cpu_settings(config, launch, replica)
    elif launch.replicas > 1:
        devices = _visible_gpus(inherited)
        if len(devices) < launch.replicas:
            raise ConfigError(
                f"launch.replicas is {launch.replicas}, but there are {len(devices)} GPUs "
                "(CUDA_VISIBLE_DEVICES counts). Each replica needs one of its own at least: lower launch.replicas"
            )
        inherited = {**inherited, _GPUS: ",".join(_share(devices, launch.replicas, replica))}
    kept = {name: value for name, value in inherited.items() if name not in _NOT_INHERITED}
    return {**settings, **kept, **launch.environment}


def served_dtype(config: EngineConfig, folder: Path) -> str:
    """Return the precision: `auto` is that of the weights, as for `hf`; vLLM's own would halve float32."""
    if config.dtype != "auto":
        return config.dtype
    settings = read_settings(folder)
    found = settings.get("dtype") or settings.get("torch_dtype")
    return str(found) if found in ("float32", "bfloat16", "float16") else "auto"


def _context_tokens(folder: Path) -> int:
    """Return the longest prompt with its answer that a model's settings allow."""
    found = read_settings(folder).get("max_position_embeddings")
    return int(found) if found else CPU_CONTEXT_TOKENS


def _cpu_settings(config: EngineConfig, launch: LaunchConfig, replica: int) -> dict[str, str]:
    """Return how much memory and which cores a server has where there is no GPU.

    vLLM itself would take nearly all memory of the machine, and leave one core idle, in each replica anew.
    """
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cache_gib = max(1, min(_MAX_CACHE_GIB, int(memory_gib / 4 / launch.replicas)))
    settings = {"VLLM_CPU_KVCACHE_SPACE": str(cache_gib)}
    if not any(word.split("=")[0] in _PARALLEL for word in launch.args):  # else several processes share them out
        cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
        own = _share(cores, launch.replicas, replica)[: config.num_threads]
        settings["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(own)
    return settings


def _visible_gpus(environment: Mapping[str, str]) -> list[str]:
    if _GPUS in environment:
        return [device for device in environment[_GPUS].split(",") if device]
    return [str(index) for index in range(len(gpu.free_mib() or ()))]


def _share(units: Sequence[str], num: int, index: int) -> Sequence[str]:
    """Return the cores or GPUs of one of `num` replicas: as many as the others have, at least one."""
    each = max(1, len(units) // num)
    start = index * each % len(units)
    return units[start : start + each]
