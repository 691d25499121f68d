from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import safetensors.numpy

from heal_core.errors import TrainingError
from heal_core.sft import folders


def write_checkpoint(folder: Path, step: int, *, complete: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    (checkpoint / "optimizer.pt").write_bytes(b"state")
    if complete:
        folders.mark_complete(checkpoint)
    return checkpoint


def test_the_newest_whole_checkpoint_wins(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 9)
    newest = write_checkpoint(tmp_path, 10)  # by number, not by name
    assert folders.last_complete_checkpoint(tmp_path) == newest


@pytest.mark.parametrize("damage", ["unmarked", "short", "missing"])
def test_a_torn_checkpoint_is_removed_and_the_one_before_taken(tmp_path: Path, damage: str) -> None:
    before = write_checkpoint(tmp_path, 2)
    torn = write_checkpoint(tmp_path, 4, complete=damage != "unmarked")
    if damage == "short":
        (torn / "optimizer.pt").write_bytes(b"st")
    elif damage == "missing":
        (torn / "model.safetensors").unlink()
    assert folders.last_complete_checkpoint(tmp_path) == before
    # looking removes nothing: several processes look
    assert torn.exists()
    folders.remove_torn_checkpoints(tmp_path)
    assert not torn.exists() and before.exists()


def test_without_a_whole_checkpoint_training_starts_afresh(tmp_path: Path) -> None:
    assert folders.last_complete_checkpoint(tmp_path / "none") is None
    write_checkpoint(tmp_path, 2, complete=False)
    assert folders.last_complete_checkpoint(tmp_path) is None


def test_another_trainings_checkpoints_are_not_resumed(tmp_path: Path) -> None:
    output = tmp_path / "out"
    folders.claim_partial(output, "first")
    write_checkpoint(folders.checkpoints_dir(output), 2)
    folders.claim_partial(output, "first")
    assert folders.last_complete_checkpoint(folders.checkpoints_dir(output)) is not None
    folders.claim_partial(output, "second")
    assert folders.last_complete_checkpoint(folders.checkpoints_dir(output)) is None


def test_publishing_moves_the_model_and_leaves_nothing_behind(tmp_path: Path) -> None:
    output = tmp_path / "out"
    folders.claim_partial(output, "key")
    model = folders.partial_dir(output) / "model"
    (model / "sub").mkdir(parents=True)
    (model / "sub" / "f").write_text("x")
    folders.publish(model, output)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert (output / "sub" / "f").read_text() == "x"


def publish_model(tmp_path: Path) -> Path:
    output = tmp_path / "out"
    model = folders.partial_dir(output) / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    safetensors.numpy.save_file({"w": numpy.zeros(10)}, model / "model.safetensors")
    folders.publish(model, output)
    return output


def test_a_published_model_is_whole_and_says_what_it_is_made_of(tmp_path: Path) -> None:
    output = publish_model(tmp_path)
    sizes = {name: (output / name).stat().st_size for name in ("config.json", "model.safetensors")}
    assert json.loads((output / "complete.json").read_text()) == sizes
    assert folders.find_faults(output) == []
    (output / "README.md").touch()  # what a user puts beside it is no fault
    assert folders.find_faults(output) == []


def test_a_published_model_that_was_cut_is_found(tmp_path: Path) -> None:
    output = publish_model(tmp_path)
    with (output / "model.safetensors").open("r+b") as weights:
        weights.truncate(50)
    (output / "config.json").unlink()
    size = json.loads((output / "complete.json").read_text())["model.safetensors"]
    faults = {"config.json is gone", f"model.safetensors has 50 bytes instead of {size}"}
    assert set(folders.find_faults(output)) == faults
    (output / "complete.json").write_text("")
    first, second = folders.find_faults(output)
    assert first == "complete.json cannot be read"
    assert second.startswith("model.safetensors cannot be read (")


def test_replaced_text_is_old_or_new(tmp_path: Path) -> None:
    folders.write_text(tmp_path / "f", "old")
    folders.write_text(tmp_path / "f", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("f", "new")]


def test_two_processes_never_hold_one_output(tmp_path: Path) -> None:
    output = tmp_path / "out"
    script = (
        "import sys; from pathlib import Path; from heal_core.sft.folders import lock_output\n"
        f"with lock_output(Path({str(output)!r})): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another process"), folders.lock_output(output, 0.2):
            pass
        holder.kill()  # the kernel frees the lock, however its holder ends
        holder.wait()
        with folders.lock_output(output, 5):
            pass
