"""Model folders, whole and damaged, and what a run would ask of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from heal_core.config import RunConfig
from heal_core.doctor.finding import Finding
from heal_core.doctor.models import check_model, check_models

LAB = Path(__file__).parents[3] / "deployments/lab"
Judge = Callable[..., Finding]


@pytest.fixture
def judge(make_config: Callable[..., RunConfig]) -> Judge:
    """Return a function that checks a run's model, which is the one in a folder."""

    def check(model: Path | str, role: str = "teacher", **settings: Any) -> Finding:
        run = make_config(**{f"{role}__model_name_or_path": str(model)}, **settings)
        return check_model(role, getattr(run, role), run)[0]

    return check


def test_the_lab_can_be_run(make_config: Callable[..., RunConfig]) -> None:
    findings, sizes = check_models(make_config())
    assert [(finding.check, finding.state) for finding in findings] == [("teacher", "ok"), ("student", "ok")]
    assert all("context of 1024 tokens, chat template" in finding.found for finding in findings)
    assert list(sizes) == ["teacher", "student"]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "expected *.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "expected a tokenizer"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1_000_000), "is missing, cut"),
        (lambda folder: os.truncate(folder / "model.safetensors", 0), "is missing, cut"),
        (
            lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
            "pointer of git-lfs",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told(
    judge: Judge, teacher: Path, damage: Callable[[Path], object], told: str
) -> None:
    assert judge(teacher).state == "ok"
    damage(teacher)
    finding = judge(teacher)
    assert finding.state == "fail"
    assert told in finding.found
    assert "teacher.model_name_or_path" in finding.remedy


def test_a_context_that_leaves_no_room_is_told_with_the_setting(judge: Judge) -> None:
    finding = judge(LAB / "teacher", rollouts__sampling__max_tokens=1024)
    assert finding.state == "fail"
    assert "set rollouts.sampling.max_tokens to" in finding.remedy
    hints = judge(LAB / "teacher", hints__sampling__max_tokens=2000)
    assert "set hints.sampling.max_tokens to" in hints.remedy
    assert judge(LAB / "student", "student", hints__sampling__max_tokens=2000).state == "ok"


def test_a_model_without_a_template_is_told(judge: Judge, teacher: Path) -> None:
    (teacher / "chat_template.jinja").unlink()
    finding = judge(teacher)
    assert finding.state == "warn"
    assert f"chat_template.jinja into {teacher}" in finding.remedy


def test_a_scorer_must_read_the_teachers_tokens(judge: Judge, teacher: Path) -> None:
    assert judge(teacher, "scorer").state == "ok"
    tokenizer = json.loads((teacher / "tokenizer.json").read_text())
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))  # other bytes may be another vocabulary
    finding = judge(teacher, "scorer")
    assert finding.state == "warn"
    assert "not the teacher's" in finding.found


def test_a_model_of_the_hub_is_looked_for_on_the_disk_only(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = huggingface_hub.snapshot_download, []

    def recorded(name: str, **how: Any) -> str:
        asked.append(how["local_files_only"])
        return real(name, **how)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", recorded)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    online = judge("heal-tests/no-such-model")
    assert online.state == "warn"
    assert "hf download heal-tests/no-such-model" in online.remedy
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert judge("heal-tests/no-such-model").state == "fail"
    assert "neither a local folder nor a name" in judge("a b/c").found
    assert asked == [True, True, True]
