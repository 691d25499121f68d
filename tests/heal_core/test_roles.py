from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from heal_core.config import RunConfig
from heal_core.engines.base import Capability, EngineConfig
from heal_core.errors import ConfigError
from heal_core.roles import check_found, check_roles

HF = {"model_name_or_path": "m"}
SERVED = {"model_name_or_path": "m", "engine": "openai", "server": {"base_url": "http://h/v1"}}
CHAT = {"model_name_or_path": "m", "engine": "openai", "server": {"base_url": "http://h/v1", "api": "chat"}}
NO_REPAIRS = {"repair": {"max_paths": 0}}
GIVES_UP = {"rollouts": {"sampling": {"early_stop": {}}}}


def config(**settings: Any) -> RunConfig:
    return RunConfig.model_validate(
        {"workspace": "w", "problems": {"path": "p.jsonl"}, "teacher": HF, "student": HF} | settings
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"teacher": SERVED},
        {
            "teacher": {"model_name_or_path": "m", "engine": "vllm"},
            "student": {"model_name_or_path": "s", "engine": "vllm"},
        },
        {"teacher": SERVED, "scorer": HF},
        {"teacher": CHAT, **NO_REPAIRS},
        {"teacher": SERVED, **GIVES_UP},
    ],
)
def test_engines_that_can_do_what_is_asked_are_taken(settings: dict[str, Any]) -> None:
    check_roles(config(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": CHAT}, "teacher m .* cannot continue a text from its tokens: .*repair.max_paths: 0"),
        ({"teacher": SERVED, "scorer": CHAT}, "scorer m .* cannot tell the log-probabilities of given tokens"),
        ({"student": SERVED}, "cannot run what is trained here"),
        ({"teacher": CHAT, **NO_REPAIRS, **GIVES_UP}, "leave early_stop out"),
    ],
)
def test_a_plan_that_an_engine_cannot_follow_is_refused_with_the_remedy(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_roles(config(**settings))


def test_a_server_that_turns_out_to_lack_what_is_asked_later_is_refused_when_it_is_met() -> None:
    plain = frozenset({Capability.GENERATE, Capability.TOKEN_PREFIX})
    served = EngineConfig.model_validate(SERVED)
    with pytest.raises(ConfigError, match=r"the teacher m .* set `scorer` to the same model with the engine hf"):
        check_found(config(teacher=SERVED), served, plain)
    check_found(config(teacher=SERVED, scorer=HF), served, plain)
    check_found(config(teacher=SERVED, **NO_REPAIRS), served, plain)
    check_found(config(teacher=SERVED), EngineConfig(model_name_or_path="a student"), frozenset())


def test_an_adapter_alone_is_refused_where_the_student_is_served() -> None:
    adapter = {"sft": {"lora": {"save": "adapter"}}}
    check_roles(config(**adapter))
    served = {"student": {"model_name_or_path": "m", "engine": "vllm"}}
    check_roles(config(**served, sft={"lora": {}}))
    with pytest.raises(ConfigError, match=r"set sft\.lora\.save=merged"):
        check_roles(config(**served, **adapter))


def test_an_adapter_alone_is_refused_where_lm_eval_uses_vllm() -> None:
    adapter = {"sft": {"lora": {"save": "adapter"}}}
    on_vllm = {"evaluation": {"lm_eval": {"tasks": ["gsm8k"], "model": "vllm"}}}
    check_roles(config(**adapter, evaluation={"lm_eval": {"tasks": ["gsm8k"]}}))
    check_roles(config(**on_vllm, sft={"lora": {}}))
    with pytest.raises(ConfigError, match=r"evaluation\.lm_eval\.model=hf, or sft\.lora\.save=merged"):
        check_roles(config(**on_vllm, **adapter))


def test_a_logger_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "trackio" else found(name))
    with pytest.raises(ConfigError, match=r"report_to: trackio is not installed.*heal-distill\[logging\]"):
        check_roles(config(sft={"report_to": ["trackio"]}))


def test_a_launcher_that_is_not_there_is_refused() -> None:
    check_roles(config(sft={"launcher": ["accelerate", "launch"]}))
    with pytest.raises(ConfigError, match=r"sft\.launcher: there is no program 'nosuchprogram'"):
        check_roles(config(sft={"launcher": ["nosuchprogram"]}))
