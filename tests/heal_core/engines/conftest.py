"""What the tests of engines share: models, and every engine on one of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from heal_core.chat import render_prompt_ids
from heal_core.engines.base import Engine, EngineConfig
from heal_core.engines.start import start_engine
from heal_core.prompts import student_prompt

LAB = Path(__file__).parents[3] / "deployments" / "lab"
QUIET_TOKEN = 700
"""After it the odd model ends its turn."""


@pytest.fixture(scope="session")
def lab_teacher() -> Path:
    return LAB / "teacher"


@pytest.fixture(scope="session")
def odd_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that babbles any token (bytes of longer characters, special tokens), opens a think block in its
    template, and has nothing to say after one token."""
    folder = tmp_path_factory.mktemp("odd")
    tokenizer = AutoTokenizer.from_pretrained(LAB / "teacher")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "<|assistant|>{% endif %}", "<|assistant|><think>\n{% endif %}"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=778, hidden_size=128, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=512, bos_token_id=None, eos_token_id=1, pad_token_id=0, tie_word_embeddings=False,
        )
    ).eval()  # fmt: skip
    ids = torch.tensor([[*render_prompt_ids(tokenizer, "Babble."), QUIET_TOKEN]])
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[0, -1]
        model.lm_head.weight[1] = 15 * hidden / hidden.norm() ** 2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


Started = dict[bool, Engine]
"""Engines of a kind that run: True for the odd model."""


class Engines:
    """Starts an engine of a kind on a model, once each: the odd model with `babbling`, else the lab's teacher.

    All kinds share the engines `hf` (`exact`), each of which takes seconds to start.
    """

    def __init__(
        self, kind: str, teacher: Path, odd: Path, serve: Callable[..., Any], stack: ExitStack, exact: Started
    ) -> None:
        self.kind = kind
        self._serve = serve
        self._folders = {False: teacher, True: odd}
        self._stack = stack
        self._own: Started = {}
        self._exact = exact

    def start(self, babbling: bool = False) -> Engine:
        """Return the engine under test."""
        return self._start(self.kind, babbling)

    def exact(self, babbling: bool = False) -> Engine:
        """Return the engine hf on the same model."""
        return self._start("hf", babbling)

    def _start(self, kind: str, babbling: bool) -> Engine:
        started = self._exact if kind == "hf" else self._own
        if babbling not in started:
            settings = self._settings(kind, self._folders[babbling])
            config = EngineConfig(
                model_name_or_path=str(self._folders[babbling]), dtype="float32", num_threads=1, **settings
            )
            started[babbling] = self._stack.enter_context(closing(start_engine(config)))
        return started[babbling]

    def _settings(self, kind: str, folder: Path) -> dict[str, Any]:
        if kind == "hf":
            return {"engine": kind}
        if kind == "vllm":  # without compiling, and with little memory
            launch = {"args": ["--enforce-eager"], "environment": {"VLLM_CPU_KVCACHE_SPACE": "1"}}
            return {"engine": kind, "launch": launch, "stall_seconds": 300}
        server = self._stack.enter_context(self._serve(folder, "--dialect", kind.removeprefix("openai-")))
        return {"engine": "openai", "server": {"base_url": server.url, "max_concurrency": 4}}


@pytest.fixture(scope="session")
def engines_of(
    lab_teacher: Path, odd_model: Path, serve_model: Callable[..., Any]
) -> Iterator[Callable[[str], Engines]]:
    """Return a function that gives the engines of a kind; all are ended at the end."""
    with ExitStack() as stack:
        kinds: dict[str, Engines] = {}
        exact: Started = {}
        yield lambda kind: kinds.setdefault(kind, Engines(kind, lab_teacher, odd_model, serve_model, stack, exact))


@pytest.fixture(scope="session")
def questions() -> list[str]:
    lines = (LAB / "development.jsonl").read_text().splitlines()[:4]
    return [student_prompt(json.loads(line)["problem"]) for line in lines]
