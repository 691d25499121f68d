"""Loading a model for real, as a run does. It takes minutes, so that it is done only when asked for."""

from __future__ import annotations

import time
from contextlib import closing

from heal_core.doctor.finding import Finding
from heal_core.engines.base import EngineConfig, GenerationRequest, SamplingConfig
from heal_core.engines.identity import find_folder
from heal_core.engines.start import start_engine
from heal_core.errors import HealError

_NUM_TOKENS = 8


def check_engine(model: EngineConfig, is_busy: bool = False) -> Finding:
    """Load a model into an engine and sample a few tokens."""
    name = model.model_name_or_path
    if is_busy:
        found = "not tried: a run is going on, and a second model might take its memory"
        return Finding("engine", "warn", found, "ask again when the lock is free")
    request = GenerationRequest("doctor", "What is 1 + 1?", max_tokens=_NUM_TOKENS)
    try:
        if model.server is None and find_folder(model) is None:
            return Finding("engine", "warn", f"not tried: {name} is not on this disk", "fetch it first, as said above")
        started = time.monotonic()
        with closing(start_engine(model)) as engine:
            kind, loaded = engine.description, time.monotonic()
            (answer,) = engine.generate([request], SamplingConfig())
    except HealError as error:
        remedy = "correct what it names; exit code -9 is a want of memory: set teacher.dtype=bfloat16, or free some"
        return Finding("engine", "fail", str(error), remedy)
    num, seconds = len(answer.token_ids), time.monotonic() - loaded
    said = f"loaded in {loaded - started:.1f} s, {num} tokens in {seconds:.1f} s ({kind.engine}, {kind.dtype})"
    return Finding("engine", "ok", f"{name}: {said}")
