"""What `heal doctor` finds in a folder, an environment and a config. Files, locks and processes are real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from heal_core import doctor
from heal_core.config import RunConfig, parse_config
from heal_core.doctor import Demand, Finding, Gpu, ModelSize
from heal_core.engines.base import EngineConfig
from heal_core.errors import ModelError
from heal_core.store.store import Store
from heal_core.store.workspace import Workspace

ROOT = Path(__file__).parents[2]
LAB = ROOT / "deployments/lab"
GIB = 2**30


def config(workspace: Path, **settings: Any) -> RunConfig:
    """Return a run's settings on the lab; `a__b=c` sets `a.b`."""
    tree: dict[str, Any] = {
        "workspace": str(workspace),
        "problems": {"path": str(LAB / "problems.jsonl"), "limit": 40, "duplicate_jaccard": 0.95},
        "teacher": {"model_name_or_path": str(LAB / "teacher"), "dtype": "float32"},
        "student": {"model_name_or_path": str(LAB / "student")},
        "rollouts": {"sampling": {"max_tokens": 224}},
        "hints": {"sampling": {"max_tokens": 48}},
    }
    for name, value in settings.items():
        *groups, last = name.split("__")
        group = tree
        for key in groups:
            group = group.setdefault(key, {})
        group[last] = value
    return parse_config(tree, "test")


def fake_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let metadata tell these versions, None for a package that is not installed, and the real ones of the rest."""
    real = metadata.version

    def version(name: str) -> str:
        found = versions[name] if name in versions else real(name)
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


def program(folder: Path, name: str, script: str) -> None:
    """Put a shell script on the path that `alone` has cleared."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that is the whole path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """Return a copy of the lab's teacher to damage."""
    return shutil.copytree(LAB / "teacher", tmp_path / "teacher")


# The environment


def test_a_finding_without_a_remedy_is_no_finding() -> None:
    with pytest.raises(AssertionError):
        Finding("disk", "warn", "5 GiB free")
    with pytest.raises(AssertionError):
        Finding("disk", "ok", "50 GiB free", "buy a disk")


def test_the_environment_of_the_tests_is_in_order() -> None:
    findings = list(doctor.check_versions())
    assert [finding.state for finding in findings if finding.check == "packages"] == ["ok"], findings
    assert f"prefect {metadata.version('prefect')}" in findings[0].found
    assert doctor.check_python().state == "ok"


def test_versions_are_read_without_importing_a_package() -> None:
    code = (
        "import sys; from heal_core import doctor; list(doctor.check_environment()); "
        "print([name for name in ('torch', 'prefect', 'duckdb', 'transformers', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "version", "consequence"),
    [
        ("fastapi", "0.165.0", "breaks every flow"),
        ("sqlalchemy", "2.1.9", "cron schedules create no runs"),
        ("prefect", "3.9.0", "heal-distill needs prefect<3.9,>=3.8.8"),
        ("transformers", "5.20.0", "heal-distill needs transformers<5.20,>=5.16"),
        ("trl", "1.17.0", "heal-distill needs trl<1.17,>=1.16"),
    ],
)
def test_a_version_that_fights_is_named_with_what_it_does(
    monkeypatch: pytest.MonkeyPatch, name: str, version: str, consequence: str
) -> None:
    fake_versions(monkeypatch, **{name: version})
    findings = {finding.check: finding for finding in doctor.check_versions()}
    assert findings[f"package {name}"].state == "fail"
    assert findings[f"package {name}"].found.startswith(f"{version}, but ")
    assert consequence in findings[f"package {name}"].found
    assert "packages" not in findings


def test_the_remedy_installs_a_version_that_suits_every_dependent(monkeypatch: pytest.MonkeyPatch) -> None:
    # heal-distill asks for <0.151, Prefect 3.8.8 for >=0.139.0,<1.0.0
    fake_versions(monkeypatch, fastapi="0.165.0")
    (finding,) = (finding for finding in doctor.check_versions() if finding.check == "package fastapi")
    assert finding.remedy == f"`{sys.executable} -m pip install 'fastapi<0.151,<1.0.0,>=0.139.0'`"


def test_the_ranges_are_those_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.requires
    monkeypatch.setattr(
        metadata,
        "requires",
        lambda name: ["duckdb>=99", 'pytest>=99; extra == "dev"'] if name == doctor.PACKAGE else real(name),
    )
    findings = list(doctor.check_versions())
    assert [(finding.check, finding.state) for finding in findings] == [("package duckdb", "fail")]


def test_a_package_that_only_another_one_minds_is_a_warning_and_a_missing_one_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_versions(monkeypatch, anyio="1.0", trl=None)
    states = {finding.check: finding.state for finding in doctor.check_versions()}
    assert states == {"package anyio": "warn", "package trl": "fail"}


def test_vllm_in_the_same_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, vllm="0.33.0")
    findings = {finding.check: finding for finding in doctor.check_versions()}
    assert findings["vllm"].state == "warn"
    assert "pip uninstall vllm" in findings["vllm"].remedy


def test_heal_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, **{doctor.PACKAGE: None})
    (finding,) = doctor.check_versions()
    assert finding.state == "fail"
    assert "heal-distill is not installed" in finding.found


@pytest.mark.parametrize(
    ("version", "state"), [("3.10.14", "fail"), ("3.11.0", "ok"), ("3.12.9", "ok"), ("3.13.1", "fail")]
)
def test_python_is_judged_by_the_range_of_the_package(
    monkeypatch: pytest.MonkeyPatch, version: str, state: str
) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: version)
    assert doctor.check_python().state == state


def test_only_linux_ends_the_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert doctor.check_platform().state == "ok"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert doctor.check_platform().state == "warn"


NVIDIA_SMI = """
case "$1" in
  --query-gpu*) echo "GPU-a, 0, 81559, 61440, NVIDIA H100 80GB HBM3"
    echo "GPU-b, 1, 81559, 81007, NVIDIA H100 80GB HBM3";;
  --query-compute-apps*) echo "GPU-a, 4242, 20119, /work/.venv/bin/python, old";;
esac
"""


def test_gpus_are_read_with_who_holds_their_memory(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.find_gpus() == ()
    program(alone, "nvidia-smi", NVIDIA_SMI)
    first, second = doctor.find_gpus()
    assert first == Gpu(
        0, "NVIDIA H100 80GB HBM3", 81559 * 2**20, 60 * GIB, ("4242 (/work/.venv/bin/python, old, 20119 MiB)",)
    )
    assert second == Gpu(1, "NVIDIA H100 80GB HBM3", 81559 * 2**20, 81007 * 2**20)
    fake_versions(monkeypatch, torch="2.13.0+cu130")
    held = doctor.check_gpus()
    assert held.state == "warn"
    assert "60.0 GiB of 79.6 GiB free" in held.found
    assert "ps -o pid,etime,user,args -p 4242" in held.remedy


def test_a_gpu_that_torch_cannot_use_is_told(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(alone, "nvidia-smi", NVIDIA_SMI)
    fake_versions(monkeypatch, torch="2.13.0+cpu")
    assert "torch 2.13.0+cpu cannot use it" in doctor.check_gpus().found


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("echo 'GPU-a, 0, [N/A], [N/A], NVIDIA GB10'", "[N/A]"),
    ],
)
def test_an_nvidia_smi_that_does_not_work_is_a_warning(alone: Path, script: str, told: str) -> None:
    program(alone, "nvidia-smi", script)
    finding = doctor.check_gpus()
    assert finding.state == "warn"
    assert told in finding.found


def test_the_sandbox_is_tried_and_only_information(alone: Path) -> None:
    assert doctor.check_sandbox().state == "warn"
    assert "apt install bubblewrap" in doctor.check_sandbox().remedy
    program(alone, "bwrap", 'test "$1 $2 $3 $4 $5" = "--ro-bind / / --unshare-all true"')
    assert doctor.check_sandbox().state == "ok"
    program(alone, "bwrap", "echo 'bwrap: setting up uid map: Permission denied' >&2; exit 1")
    assert "uid map: Permission denied" in doctor.check_sandbox().found


@pytest.mark.parametrize(
    ("zone", "state"), [("Europe/Berlin", "ok"), (":Asia/Tokyo", "ok"), ("CET-1CEST", "warn"), ("../etc", "warn")]
)
def test_the_time_zone_must_be_one_that_python_knows(monkeypatch: pytest.MonkeyPatch, zone: str, state: str) -> None:
    monkeypatch.setenv("TZ", zone)
    finding = doctor.check_clock()
    assert finding.state == state
    assert zone.removeprefix(":") in finding.found


# Disk, workspace, store


@pytest.mark.parametrize(
    ("free_gib", "expected_gib", "state"),
    [(50, 0, "ok"), (50, 80, "warn"), (9.9, 0, "warn"), (0.9, 0, "fail"), (0.9, 80, "fail")],
)
def test_free_disk_is_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_gib: float, expected_gib: int, state: str
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=int(free_gib * GIB))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    finding = doctor.check_disk(tmp_path / "not" / "yet", expected_bytes=expected_gib * GIB)
    assert finding.state == state
    assert f"{free_gib:.1f} GiB" in finding.found


def test_a_full_disk_under_a_workspace_is_told_with_what_makes_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    finding = doctor.check_disk(tmp_path, stored_bytes=3 * GIB)
    assert "the workspace takes 3.0 GiB" in finding.found
    assert f"heal store gc -w {tmp_path}" in finding.remedy


def test_a_file_system_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    finding = doctor.check_file_system(tmp_path / "deep" / "down")
    assert finding.state == "ok"
    assert finding.found.startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert doctor.check_file_system(tmp_path / "file" / "workspace").state == "fail"
    assert doctor.check_file_system(Path("/proc/workspace")).state == "fail"


def test_locks_that_do_not_exclude_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.fcntl, "flock", lambda file, operation: None)
    finding = doctor.check_file_system(tmp_path)
    assert finding.state == "fail"
    assert "do not exclude" in finding.found


def test_who_holds_a_workspace_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert doctor.check_lock(tmp_path).state == "ok"
    workspace.create()
    assert doctor.check_lock(tmp_path).state == "ok"
    with workspace.lock():
        held = doctor.check_lock(tmp_path)
        os.truncate(workspace.lock_file, 0)  # on a full disk a run cannot say who it is
        nameless = doctor.check_lock(tmp_path)
    assert held.state == nameless.state == "warn"
    assert held.found == f"held by process {os.getpid()}: {' '.join(psutil.Process().cmdline())}"
    assert f"kill {os.getpid()}" in held.remedy
    assert "kill" not in nameless.remedy
    assert doctor.check_lock(tmp_path).state == "ok"


def store_with(workspace: Workspace, events: Mapping[str, Mapping[str, Any] | None] = {}) -> None:
    """Make a store; its one run, if any, has these events with their details."""
    workspace.create()
    with workspace.lock(), Store(workspace) as store:
        now = datetime.now(UTC)
        texts = {"config": "{}", "problems_digest": "d", "seed": 0, "heal_version": "0", "started_at": now}
        run = dict.fromkeys(store.part_schema("runs").names) | texts | {"run_id": "abc123"}
        event = dict.fromkeys(store.part_schema("run_events").names) | {"run_id": "abc123", "happened_at": now}
        store.append("runs", [run] if events else [])
        for name, detail in events.items():
            store.append("run_events", [event | {"event_id": name, "event": name, "detail": json.dumps(detail or {})}])


@pytest.mark.parametrize(
    ("events", "state", "told"),
    [
        ({}, "ok", "no run yet"),
        ({"started": None, "completed": None}, "ok", "last run abc123, completed"),
        ({"started": None}, "warn", "last run abc123, unfinished"),
        ({"started": None, "failed": {"error": "no space left"}}, "warn", "no space left"),
        ({"started": None, "stopped": {"reason": "it is 07:00"}}, "ok", "it is 07:00"),
    ],
)
def test_the_store_says_how_the_last_run_stands(
    tmp_path: Path, events: Mapping[str, Mapping[str, Any] | None], state: str, told: str
) -> None:
    store_with(Workspace(tmp_path), events)
    finding = doctor.check_store(tmp_path)
    assert finding.state == state
    assert told in finding.found
    assert state == "ok" or f"heal retry abc123 -w {tmp_path}" in finding.remedy
    assert doctor.check_store(tmp_path, is_busy=True).state == "ok"


def test_a_workspace_without_a_store_is_new_or_a_copy_of_parts(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert doctor.check_store(tmp_path).state == "ok"
    store_with(workspace, {"started": None})
    workspace.database.unlink()
    copy = doctor.check_store(tmp_path)
    assert copy.state == "warn"
    assert f"heal store rebuild -w {tmp_path}" in copy.remedy


def test_a_damaged_store_is_told_with_how_to_rebuild_it(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    store_with(workspace)
    workspace.database.write_bytes(b"no database" * 1000)
    finding = doctor.check_store(tmp_path)
    assert finding.state == "fail"
    assert f"heal store rebuild -w {tmp_path}" in finding.remedy


@pytest.mark.parametrize(("name", "state", "told"), [("9999_later", "fail", "git pull"), ("0000_earlier", "ok", "")])
def test_a_store_of_another_schema_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, state: str, told: str
) -> None:
    store_with(Workspace(tmp_path), {"started": None})
    schema = doctor.check_store(tmp_path).found.split()[1].rstrip(";")
    # the schema that the store has is the newest; HEAL knows an earlier one, or a later one
    known = "0000_earlier" if name == "9999_later" else "9999_later"
    monkeypatch.setattr("heal_core.store.database.newest_schema", lambda: known)
    finding = doctor.check_store(tmp_path)
    assert finding.state == state
    assert schema in finding.found and known in finding.found
    assert told in finding.remedy


# Models


def test_the_lab_can_be_run(tmp_path: Path) -> None:
    for role in ("teacher", "student"):
        settings = config(tmp_path)
        finding, size = doctor.check_model(role, getattr(settings, role), settings)
        assert finding.state == "ok", finding
        assert "context of 1024 tokens, chat template" in finding.found
        assert size is not None


def judge(model: Path | str, tmp_path: Path, role: str = "teacher", **settings: Any) -> Finding:
    run = config(tmp_path / "workspace", **{f"{role}__model_name_or_path": str(model)}, **settings)
    return doctor.check_model(role, getattr(run, role), run)[0]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "expected *.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "expected a tokenizer"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1_000_000), "it is cut"),
        (lambda folder: os.truncate(folder / "model.safetensors", 100), "no safetensors file"),
        (lambda folder: os.truncate(folder / "model.safetensors", 0), "no safetensors file"),
        (
            lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
            "pointer of git-lfs",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_is_told(
    teacher: Path, tmp_path: Path, damage: Callable[[Path], object], told: str
) -> None:
    assert judge(teacher, tmp_path).state == "ok"
    damage(teacher)
    finding = judge(teacher, tmp_path)
    assert finding.state == "fail"
    assert told in finding.found
    assert "teacher.model_name_or_path" in finding.remedy


def test_a_shard_that_the_index_names_must_be_there(teacher: Path, tmp_path: Path) -> None:
    (teacher / "model.safetensors").rename(teacher / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (teacher / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    finding = judge(teacher, tmp_path)
    assert finding.state == "fail"
    assert "model-00002-of-00002.safetensors cannot be read: No such file" in finding.found


def test_weights_are_counted_from_their_headers(tmp_path: Path) -> None:
    # 2 x 3 + 4 = 10 parameters in 6 x 4 + 4 x 2 = 32 bytes
    tensors = {"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.float16)}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    save_file(tensors, tmp_path / "copy.safetensors")  # not what transformers would load
    assert doctor.read_weights(tmp_path) == (10, 32)
    (tmp_path / "model.safetensors").rename(tmp_path / "part.safetensors")
    assert doctor.read_weights(tmp_path) == (20, 64)


def test_a_context_that_leaves_no_room_is_told_with_a_setting_that_does(tmp_path: Path) -> None:
    finding = judge(LAB / "teacher", tmp_path, rollouts__sampling__max_tokens=1024)
    assert finding.state == "fail"
    assert "rollouts.sampling.max_tokens=512" in finding.remedy
    hints = judge(LAB / "teacher", tmp_path, hints__sampling__max_tokens=2000)
    assert "hints.sampling.max_tokens=512" in hints.remedy
    assert judge(LAB / "student", tmp_path, "student", hints__sampling__max_tokens=2000).state == "ok"


def test_a_model_without_a_context_or_a_template_is_told(teacher: Path, tmp_path: Path) -> None:
    (teacher / "chat_template.jinja").unlink()
    assert judge(teacher, tmp_path).state == "warn"
    assert "chat_template.jinja" in judge(teacher, tmp_path).remedy
    settings = json.loads((teacher / "config.json").read_text())
    del settings["max_position_embeddings"]
    (teacher / "config.json").write_text(json.dumps(settings))
    finding = judge(teacher, tmp_path)
    assert finding.state == "fail"
    assert finding.remedy == f"add max_position_embeddings to {teacher / 'config.json'}"


def test_a_scorer_must_read_the_teachers_tokens(teacher: Path, tmp_path: Path) -> None:
    assert judge(teacher, tmp_path, "scorer").state == "ok"
    tokenizer = json.loads((teacher / "tokenizer.json").read_text())
    (teacher / "tokenizer.json").write_text(json.dumps(tokenizer, indent=1))  # other bytes may be another vocabulary
    finding = judge(teacher, tmp_path, "scorer")
    assert finding.state == "warn"
    assert "not the teacher's" in finding.found


def test_a_model_of_the_hub_is_looked_for_on_the_disk_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = huggingface_hub.snapshot_download, []

    def recorded(name: str, **how: Any) -> str:
        asked.append(how["local_files_only"])
        return real(name, **how)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", recorded)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    online = judge("heal-tests/no-such-model", tmp_path)
    assert online.state == "warn"
    assert "hf download heal-tests/no-such-model" in online.remedy
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert judge("heal-tests/no-such-model", tmp_path).state == "fail"
    assert judge("a b/c", tmp_path).state == "fail"
    assert asked == [True, True, True]


# Memory


def sizes(tmp_path: Path, **settings: Any) -> ModelSize:
    run = config(tmp_path, **settings)
    size = doctor.check_model("teacher", run.teacher, run)[1]
    assert size is not None
    return size


def test_what_a_model_takes_is_computed_from_its_files(tmp_path: Path) -> None:
    settings = json.loads((LAB / "teacher/config.json").read_text())
    num_parameters, stored_bytes = doctor.read_weights(LAB / "teacher")
    heads = settings["num_attention_heads"]
    head_size = settings.get("head_dim") or settings["hidden_size"] // heads
    # keys and values of each layer, 224 tokens of answer and 512 of prompt, 4 bytes a number in float32
    numbers = 2 * settings["num_hidden_layers"] * settings["num_key_value_heads"] * head_size * (224 + 512)
    assert sizes(tmp_path) == ModelSize(num_parameters, 4 * num_parameters, 4 * numbers)
    assert sizes(tmp_path, teacher__dtype="bfloat16") == ModelSize(num_parameters, 2 * num_parameters, 2 * numbers)
    assert sizes(tmp_path, teacher__dtype="auto").loaded_bytes == stored_bytes
    # the context of 1024 tokens is the longest answer there is
    longest = sizes(tmp_path, rollouts__sampling__max_tokens=1000).answer_bytes
    assert longest == 4 * numbers // (224 + 512) * 1024


def memory(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, gpus: tuple[Gpu, ...] = (), busy: bool = False, **settings: Any
) -> dict[str, Finding]:
    """Return what is said where the teacher has 7 GiB of weights and caches of 0.25 GiB, the student 1G parameters."""
    monkeypatch.setattr(doctor, "available_memory", lambda: int(free_gib * GIB))
    monkeypatch.setattr(doctor, "find_gpus", lambda: gpus)
    fake_versions(monkeypatch, torch="2.13.0+cu130")
    run = config(Path("/nowhere"), teacher__batch_size=16, **settings)
    found = {"teacher": ModelSize(7 * 2**29, 7 * GIB, GIB // 4), "student": ModelSize(GIB // 4, GIB // 2, 0)}
    return {finding.check: finding for finding in doctor.check_memory(run, found, busy)}


@pytest.mark.parametrize(
    ("free_gib", "state"),
    [
        (13, "ok"),  # teacher: 7 + 1 for the libraries + 16 x 0.25 = 12; training: 16 bytes x 0.25 + 1 = 5
        (11, "warn"),  # it loads, but a full batch may not fit
        (7.5, "fail"),
    ],
)
def test_memory_is_compared_with_the_largest_model(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, state: str
) -> None:
    finding = memory(monkeypatch, free_gib)["memory"]
    assert finding.state == state
    assert "the teacher needs 8.0 GiB, with a full batch up to 12.0 GiB" in finding.found
    assert state == "ok" or "teacher.batch_size=4 or teacher.dtype=bfloat16" in finding.remedy


def test_a_run_that_goes_on_explains_why_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory(monkeypatch, 7.5, busy=True)["memory"].state == "warn"


def test_each_place_is_judged_by_what_runs_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(0, "NVIDIA", 80 * GIB, 4 * GIB)
    on_gpu = memory(monkeypatch, 100, (gpu,))
    assert on_gpu["memory"].state == "ok"
    assert on_gpu["memory cuda:0"].state == "fail"
    split = memory(monkeypatch, 100, (gpu,), teacher__device="cpu")
    assert "the teacher needs 8.0 GiB" in split["memory"].found
    assert "training needs 5.0 GiB" in split["memory cuda:0"].found  # 5 of 4 GiB
    assert split["memory cuda:0"].state == "fail"
    # a launcher shards the training over several GPUs, and only the student's 0.5 + 1 GiB are left
    sharded = memory(monkeypatch, 100, (gpu,), teacher__device="cpu", sft__launcher=["accelerate", "launch"])
    assert sharded["memory cuda:0"].state == "ok"


def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = memory(monkeypatch, 100, teacher__device="cuda:1")["memory cuda:1"]
    assert finding.state == "fail"
    assert "teacher.device" in finding.remedy
    # also where nothing is known of the models
    (_, unread) = doctor.check_memory(config(Path("/nowhere"), sft__device="cuda"))
    assert (unread.check, unread.state) == ("memory cuda:0", "fail")


def test_memory_is_told_without_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = doctor.check_memory()
    assert finding.state == "ok"
    available = doctor.available_memory()
    assert available is not None
    assert 0 < available <= psutil.virtual_memory().total


def test_what_does_not_start_at_all_is_told_before_what_is_larger() -> None:
    starts, does_not = Demand("a", GIB, 9 * GIB, "x"), Demand("b", 3 * GIB, 3 * GIB, "y")
    assert "b needs 3.0 GiB" in doctor._judge_memory("cpu", 2 * GIB, [starts, does_not], False).found


# Problems, verifier, engine


@pytest.mark.parametrize(
    ("rows", "settings", "state", "told"),
    [
        (
            [("1 + 1?", "2"), ("2 + 2?", "4"), ("3 + 3?", "6"), ("4 + 4?", "8")],
            {"held_out_fraction": 0.5},
            "ok",
            "4 in all",
        ),
        ([("1 + 1?", "2"), ("1 + 1?", "3")], {"held_out_fraction": 0.01}, "fail", "none in the split held_out"),
        ([("1 + 1?", "")], {}, "fail", "no_answer"),
    ],
)
def test_problem_files_are_read_as_a_run_would(
    tmp_path: Path, rows: list[tuple[str, str]], settings: dict[str, Any], state: str, told: str
) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"problem": question, "answer": answer}) + "\n" for question, answer in rows))
    run = config(tmp_path, problems={"path": str(path), **settings})
    finding = doctor.check_problems(run)
    assert finding.state == state
    assert told in finding.found


def test_rows_in_quarantine_are_counted_and_the_first_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    lines = (LAB / "problems.jsonl").read_text().splitlines()[:30]
    path.write_text("\n".join([lines[0], "{broken", '{"problem": "x"}', *lines[1:]]))
    run = config(tmp_path, problems={"path": str(path), "held_out_fraction": 0.5, "duplicate_jaccard": 0.95})
    finding = doctor.check_problems(run)
    assert finding.state == "warn"
    assert "30 in all" in finding.found
    assert "2 rows go to quarantine, the first for invalid_json" in finding.found
    assert f"sed -n 2p {path}" in finding.remedy


def test_a_missing_problem_file_is_told(tmp_path: Path) -> None:
    finding = doctor.check_problems(config(tmp_path, problems__path=str(tmp_path / "none.jsonl")))
    assert finding.state == "fail"
    assert "No such file" in finding.found


@pytest.mark.slow
def test_the_verifier_grades_or_says_why_not(tmp_path: Path) -> None:
    assert doctor.check_verifier(config(tmp_path)).state == "ok"
    hasty = doctor.check_verifier(config(tmp_path, verify__timeout_seconds=1e-9))
    assert hasty.state == "fail"
    assert "timeout" in hasty.found


@pytest.mark.slow
def test_the_engine_is_loaded_for_real(teacher: Path) -> None:
    model = EngineConfig(model_name_or_path=str(teacher), dtype="float32")
    good = doctor.check_engine(model, 120)
    assert good.state == "ok", good
    assert re.search(r"loaded in [0-9.]+ s, [1-8] tokens in [0-9.]+ s \(hf transformers-.*, float32\)", good.found)
    os.truncate(teacher / "model.safetensors", 1_000_000)
    cut = doctor.check_engine(model, 120)
    assert cut.state == "fail"
    assert str(teacher) in cut.found


@pytest.mark.slow
def test_an_engine_over_its_time_is_ended_with_all_of_its_children() -> None:
    started = time.monotonic()
    finding = doctor.check_engine(EngineConfig(model_name_or_path=str(LAB / "teacher")), 1.5)
    assert finding.state == "fail"
    assert "not answered within 1.5 s" in finding.found
    assert time.monotonic() - started < 10
    deadline = time.monotonic() + 5
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_no_second_model_is_loaded_beside_a_run() -> None:
    finding = doctor.check_engine(EngineConfig(model_name_or_path=str(LAB / "teacher")), 60, is_busy=True)
    assert finding.state == "warn"
    assert "not tried" in finding.found


# All of it


@pytest.mark.slow
def test_a_run_on_the_lab_passes_and_its_workspace_is_not_made(tmp_path: Path) -> None:
    findings = list(doctor.check_run(config(tmp_path / "workspace")))
    assert {finding.check: finding.state for finding in findings if finding.state != "ok"} == {}
    assert [finding.check for finding in findings] == [
        "file system", "disk", "lock", "store", "teacher", "student", "memory", "problems", "verifier",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_what_training_will_still_write_is_told(tmp_path: Path) -> None:
    run = config(tmp_path, controls={"rejection_sampling": True, "equal_tokens": False})
    # 2 arms of 3 stages, 4 bytes a parameter
    assert doctor._stages_bytes(run, {"student": ModelSize(1000, 2000, 0)}) == 24_000
    with pytest.raises(ModelError):
        doctor.find_model(EngineConfig(model_name_or_path="./none"))
