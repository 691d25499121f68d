from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from heal_core.config import parse_config
from heal_core.engines.base import EngineConfig
from heal_core.engines.remote.secret import Secret
from heal_core.engines.server_config import LaunchConfig, ServerConfig
from heal_core.errors import ConfigError

SECRETS = [
    "https://me:s3cret@host/v1",
    "https://s3cret@host/v1",
    "https://host/v1?key=s3cret",
    "https://host/v1#s3cret",
]


@pytest.mark.parametrize("url", SECRETS)
def test_a_url_with_a_credential_is_refused_without_showing_it(url: str) -> None:
    settings = {
        "workspace": "w",
        "problems": {"path": "p.jsonl"},
        "teacher": {"model_name_or_path": "m", "engine": "openai", "server": {"base_url": url}},
        "student": {"model_name_or_path": "s"},
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(settings, "run.yaml")
    assert "s3cret" not in str(caught.value)
    assert "HEAL_API_KEY" in str(caught.value), "the remedy"


@pytest.mark.parametrize("key", ["api_key", "key", "token", "password", "secret"])
def test_a_key_in_the_config_is_refused_without_showing_it(key: str) -> None:
    settings = {
        "workspace": "w",
        "problems": {"path": "p.jsonl"},
        "teacher": {
            "model_name_or_path": "m",
            "engine": "openai",
            "server": {"base_url": "http://h/v1", key: "s3cret"},
        },
        "student": {"model_name_or_path": "s"},
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(settings, "run.yaml")
    assert "s3cret" not in str(caught.value)
    assert f"teacher.server.{key}" in str(caught.value)


@pytest.mark.parametrize(
    "model",
    [
        {"engine": "vllm", "launch": {"args": ["--api-key", "s3cret"]}},
        {"engine": "vllm", "launch": {"args": ["--hf_token=s3cret"]}},
        {"engine": "vllm", "launch": {"environment": {"HF_TOKEN": "s3cret"}}},
        {"engine": "openai", "server": {"base_url": "http://h/v1", "extra_body": {"api_key": "s3cret"}}},
    ],
)
def test_a_credential_for_a_server_is_refused_without_showing_it(model: dict[str, Any]) -> None:
    settings = {
        "workspace": "w",
        "problems": {"path": "p.jsonl"},
        "teacher": {"model_name_or_path": "m", **model},
        "student": {"model_name_or_path": "s"},
    }
    with pytest.raises(ConfigError, match="may be a credential") as caught:
        parse_config(settings, "run.yaml")
    assert "s3cret" not in str(caught.value)


def test_arguments_and_variables_that_hold_no_credential_are_taken() -> None:
    args = ("--max-num-seqs", "64", "--generation-config", "auto", "--ssl-keyfile", "/etc/key")
    launch = LaunchConfig(args=args, environment={"VLLM_CPU_KVCACHE_SPACE": "1"})
    assert launch.args == args


@pytest.mark.parametrize(("field", "remedy"), [("model", "server.model"), ("seed", "leave it out")])
def test_what_heal_fills_in_is_no_further_field(field: str, remedy: str) -> None:
    # with one seed for all, the rollouts of a problem would be the same text
    with pytest.raises(ValidationError, match=remedy):
        ServerConfig(base_url="http://h/v1", extra_body={field: 1})


def test_further_fields_are_kept() -> None:
    fields = {"min_tokens": 3, "chat_template_kwargs": {"enable_thinking": False}}
    assert ServerConfig(base_url="http://h/v1", extra_body=fields).extra_body == fields


@pytest.mark.parametrize("url", ["host:8000", "ftp://host/v1", "http://", "http://host:port/v1", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="base_url"):
        ServerConfig(base_url=url)


def test_several_servers_are_named_once_each() -> None:
    assert ServerConfig(base_url=("http://a/v1/", "http://b/v1")).base_urls == ("http://a/v1", "http://b/v1")
    with pytest.raises(ValidationError, match="twice"):
        ServerConfig(base_url=("http://a/v1/", "http://a/v1"))
    with pytest.raises(ValidationError, match="names no server"):
        ServerConfig(base_url=())


def test_another_place_is_another_model_unless_it_has_a_name() -> None:
    here, there = ServerConfig(base_url="http://a/v1"), ServerConfig(base_url="http://b/v1")
    assert here.identity() != there.identity()
    named = [ServerConfig(base_url=url, name="qwen3-32b").identity() for url in ("http://a/v1", "http://b/v1")]
    assert named[0] == named[1]


def test_what_bounds_the_entropies_that_are_stored_is_part_of_the_identity() -> None:
    small, large = (ServerConfig(base_url="http://a/v1", vocabulary_size=size) for size in (1_000, 100_000))
    assert small.identity() != large.identity()


def test_how_fast_a_server_is_asked_is_no_part_of_the_identity() -> None:
    quick = ServerConfig(base_url="http://a/v1", max_concurrency=500, silence_seconds=1, max_tries=1)
    assert quick.identity() == ServerConfig(base_url="http://a/v1").identity()


def test_each_engine_has_its_own_settings() -> None:
    with pytest.raises(ValidationError, match=r"needs to know where its server is"):
        EngineConfig(model_name_or_path="m", engine="openai")
    with pytest.raises(ValidationError, match="server is a setting of the engine openai"):
        EngineConfig(model_name_or_path="m", server={"base_url": "http://a/v1"})
    with pytest.raises(ValidationError, match="launch is a setting of the engine vllm"):
        EngineConfig(model_name_or_path="m", launch={})


def test_a_secret_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-0123456789")
    secret = Secret(ServerConfig(base_url="http://a/v1", api_key_variable="MY_KEY"))
    assert secret.headers() == {"Authorization": "Bearer sk-0123456789"}
    assert "sk-0123456789" not in repr(secret)
    told = "key sk-0123456789, Bearer abcdefghijkl, https://me:pw@host/x"
    assert secret.redact(told) == "key [redacted], Bearer [redacted], https://[redacted]@host/x"


def test_without_a_key_none_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEAL_API_KEY", raising=False)
    secret = Secret(ServerConfig(base_url="http://a/v1"))
    assert not secret.is_set
    assert secret.headers() == {}
    assert secret.redact("nothing") == "nothing"


def test_arguments_of_pace_are_not_in_a_launch_s_identity_and_unknown_ones_are() -> None:
    args = ("--tensor-parallel-size", "2", "--quantization", "fp8", "--max-num-seqs=64", "--some-flag", "-tp", "4")
    launch = LaunchConfig(args=args, replicas=3, environment={"A": "b"}, max_concurrency=9)
    assert launch.identity() == {"top_logprobs": 20, "args": ["--quantization", "fp8", "--some-flag"]}
    # neither a run's id nor a content key may depend on the number of servers, both on what they quantise
    configs = [
        EngineConfig(model_name_or_path="m", engine="vllm", launch=launch.model_copy(update=update))
        for update in ({}, {"replicas": 1, "environment": {}}, {"args": ()})
    ]
    first, faster, other = (config.identity() for config in configs)
    assert first == faster
    assert first != other
