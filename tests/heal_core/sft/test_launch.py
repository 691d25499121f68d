from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoTokenizer

from heal_core.children import start_child
from heal_core.errors import TimeIsUpError, TrainingError, TrainingKilledError, TrainingStalledError
from heal_core.sft import folders
from heal_core.sft.config import SftConfig
from heal_core.sft.launch import StageProgress, child_command, read_progress, run_stage
from heal_core.sft.spec import StageResult, StageSpec, StepLog, read_result

# 11 prompt tokens (8 bytes, 3 special) and 3 response tokens each; the last does not fit the context
ROWS = [(f"e{i}", f"{i:02d} + 1 =", f"{i + 1:02d}") for i in range(20)] + [("long", "p", "1" * 200)]
CONFIG = SftConfig(learning_rate=3e-3, num_threads=1, device="cpu", per_device_train_batch_size=4)
NUM_STEPS = 120
IN_A_SMALL_DISK = ["unshare", "--mount", "--map-root-user", "sh", "-c"]

Trained = tuple[StageSpec, StageResult, list[StageProgress]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, student_dir: Path) -> Trained:
    """A stage trained to its end, undisturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    lines = [json.dumps({"example_id": i, "prompt": p, "response": r}) for i, p, r in ROWS]
    (folder / "examples.jsonl").write_text("\n".join(lines))
    spec = StageSpec(
        stage="I",
        arm="heal",
        model_name_or_path=str(student_dir),
        examples_path=folder / "examples.jsonl",
        num_optimizer_steps=NUM_STEPS,
        output_dir=folder / "checkpoint",
        config=CONFIG,
    )
    seen: list[StageProgress] = []
    return spec, run_stage(spec, seen.append), seen


@pytest.mark.slow
def test_a_stage_learns_and_says_what_it_did(trained: Trained) -> None:
    _, result, seen = trained
    assert (result.num_examples, result.num_dropped_over_long) == (20, 1)
    assert [step.step for step in result.steps] == list(range(1, NUM_STEPS + 1))
    assert result.loss_last < 0.5 * result.loss_first
    # cosine after ceil(0.05 * 120) = 6 warm-up steps: the peak is logged at step 7, then it falls to 0
    assert max(result.steps, key=lambda s: s.learning_rate).step == 7
    assert result.steps[6].learning_rate == pytest.approx(3e-3)
    assert result.steps[-1].learning_rate < 1e-5
    assert result.num_tokens == NUM_STEPS * 8 * 14
    assert result.resumed_from_step == 0
    assert result.peak_memory_mib > 0
    assert seen[-1].num_optimizer_steps == NUM_STEPS


@pytest.mark.slow
def test_preflight_shows_what_carries_loss(trained: Trained) -> None:
    spec, result, _ = trained
    shown = result.preflight.first_example
    assert shown.without_loss == "<|user|>00 + 1 =<|end|><|assistant|>"
    assert shown.with_loss == "01<|end|>"
    assert result.preflight.loss_share == pytest.approx(3 / 14)
    assert result.preflight.max_length_tokens == 128
    assert json.loads((spec.output_dir / "preflight.json").read_text()) == result.preflight.model_dump()


@pytest.mark.slow
def test_the_output_is_an_ordinary_model_folder(trained: Trained, student_dir: Path) -> None:
    spec, result, _ = trained
    assert {p.name for p in spec.output_dir.iterdir()} == {
        "chat_template.jinja",
        "complete.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preflight.json",
        "result.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert not folders.partial_dir(spec.output_dir).exists()
    assert read_result(spec.output_dir) == result
    # what ends a turn stops generation, though the base student's EOS was another token
    assert json.loads((spec.output_dir / "generation_config.json").read_text())["eos_token_id"] == [4, 1]
    before, after = AutoTokenizer.from_pretrained(student_dir), AutoTokenizer.from_pretrained(spec.output_dir)
    assert before.get_vocab() == after.get_vocab()
    assert before.chat_template == after.chat_template


@pytest.mark.slow
def test_a_finished_stage_is_not_trained_again(trained: Trained) -> None:
    spec, result, _ = trained
    weights = spec.output_dir / "model.safetensors"
    written = weights.stat().st_mtime_ns
    started = time.monotonic()
    assert run_stage(spec) == result
    assert time.monotonic() - started < 2  # no child: its imports alone take longer
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(TrainingError, match="another training"):
        run_stage(spec.model_copy(update={"num_optimizer_steps": 5}))


def untimed(result: StageResult) -> list[StepLog]:
    """Return the steps of a stage without the time that they took."""
    return [step.model_copy(update={"seconds": None}) for step in result.steps]


def wait_for_checkpoint(child: subprocess.Popen[bytes], folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(folder.glob("checkpoint-*/complete.json"))) < count:
        assert child.poll() is None, "the child ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def killed(trained: Trained, tmp_path: Path) -> Iterator[StageSpec]:
    """The same stage, killed by SIGKILL with two checkpoints written, of which the newest is then torn."""
    config = CONFIG.model_copy(update={"save_every_steps": 20})
    spec = trained[0].model_copy(update={"output_dir": tmp_path / "checkpoint", "config": config})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    child = start_child(child_command(spec, tmp_path / "spec.json"))
    wait_for_checkpoint(child, folders.checkpoints_dir(spec.output_dir), 2)
    child.kill()
    assert child.wait() == -9
    yield spec


@pytest.mark.slow
def test_a_killed_stage_resumes_before_its_torn_checkpoint_to_the_same_weights(
    trained: Trained, killed: StageSpec, tmp_path: Path
) -> None:
    assert not killed.output_dir.exists()
    checkpoints = folders.checkpoints_dir(killed.output_dir)
    newest = folders.last_complete_checkpoint(checkpoints)
    assert newest is not None
    newest.rename(tmp_path / "aside")
    before = folders.last_complete_checkpoint(checkpoints)
    (tmp_path / "aside").rename(newest)
    with (newest / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    result = run_stage(killed)
    # the kill may fall between the writing of a third checkpoint and the removal of the first
    assert result.resumed_from_step == (folders.checkpoint_step(before) if before else 0)
    assert untimed(result) == untimed(trained[1])
    expected = load_file(trained[0].output_dir / "model.safetensors")
    found = load_file(killed.output_dir / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, weights in expected.items():
        np.testing.assert_array_equal(found[name], weights)


@pytest.mark.full
@pytest.mark.parametrize("moment", ["checkpoint-{}", "checkpoint-{}/complete.json"])
def test_a_kill_at_any_step_while_or_after_its_checkpoint_is_written_ends_at_the_same_weights(
    trained: Trained, tmp_path: Path, moment: str
) -> None:
    num_steps = 6
    config = CONFIG.model_copy(update={"save_every_steps": 1})
    undisturbed = trained[0].model_copy(update={"output_dir": tmp_path / "whole", "num_optimizer_steps": num_steps})
    expected = run_stage(undisturbed)
    spec = undisturbed.model_copy(update={"output_dir": tmp_path / "checkpoint", "config": config})
    (tmp_path / "spec.json").write_text(spec.model_dump_json())
    for step in range(1, num_steps):
        awaited = folders.checkpoints_dir(spec.output_dir) / moment.format(step)
        child = start_child(child_command(spec, tmp_path / "spec.json"))
        while not awaited.exists() and child.poll() is None:
            time.sleep(0.0005)
        child.kill()
        assert child.wait() == -9, "the child ended before it could be killed"
    result = run_stage(spec)
    assert result.resumed_from_step >= num_steps - 2
    assert untimed(result) == untimed(expected)
    for name, weights in load_file(spec.output_dir / "model.safetensors").items():
        np.testing.assert_array_equal(weights, load_file(undisturbed.output_dir / "model.safetensors")[name])


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_last_whole_checkpoint_kept(trained: Trained, tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=2m none {tmp_path}"
    if subprocess.run([*IN_A_SMALL_DISK, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    config = CONFIG.model_copy(update={"save_every_steps": 1, "save_total_limit": 100})
    # a checkpoint of the student, with the optimizer's moments, has 0.5 MB
    spec = trained[0].model_copy(update={"output_dir": tmp_path / "checkpoint", "config": config})
    path = trained[0].output_dir.with_name("small_disk.json")
    path.write_text(spec.model_dump_json())
    script = (
        f'{mount} && "$0" -m heal_core.sft {path}; code=$?; ls {tmp_path}/*/checkpoints/*/complete.json; exit $code'
    )
    done = subprocess.run(
        [*IN_A_SMALL_DISK, script, sys.executable], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.returncode == 2, done.stderr
    kept = [Path(line).parent.name for line in done.stdout.split()]
    assert kept, "no checkpoint fits: a larger disk is needed here"
    newest = max(kept, key=lambda name: int(name.partition("-")[2]))
    assert "stage I of arm heal: the disk is full" in done.stderr
    assert f"{newest} is kept, and the stage goes on from it once there is room" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_stage_stops_at_its_time_with_a_checkpoint_and_goes_on_to_the_same_weights(
    trained: Trained, tmp_path: Path
) -> None:
    # the time is over from the start: one step is taken, so that every start gets further
    past = datetime(2026, 1, 1, tzinfo=UTC)
    # a launcher makes a failure of any exit code but 0
    launcher = tmp_path / "launch"
    launcher.write_text(f'#!/bin/sh\n{sys.executable} "$@" || exit 1\n')
    launcher.chmod(0o755)
    config = CONFIG.model_copy(update={"launcher": (str(launcher),)})
    spec = trained[0].model_copy(update={"output_dir": tmp_path / "checkpoint", "stop_at": past, "config": config})
    for step in (1, 2):
        with pytest.raises(TimeIsUpError, match=f"stage I of arm heal stopped after step {step} of {NUM_STEPS}"):
            run_stage(spec)
        checkpoint = folders.last_complete_checkpoint(folders.checkpoints_dir(spec.output_dir))
        assert checkpoint is not None and folders.checkpoint_step(checkpoint) == step
    assert not spec.output_dir.exists()
    result = run_stage(spec.model_copy(update={"stop_at": datetime.now(UTC) + timedelta(hours=1)}))
    assert result.resumed_from_step == 2
    assert untimed(result) == untimed(trained[1])
    expected = load_file(trained[0].output_dir / "model.safetensors")
    for name, weights in load_file(spec.output_dir / "model.safetensors").items():
        np.testing.assert_array_equal(weights, expected[name])


@pytest.mark.slow
def test_a_child_that_something_killed_may_be_tried_again(make_spec: Callable[..., StageSpec], tmp_path: Path) -> None:
    dying = tmp_path / "dying"
    dying.write_text("#!/bin/sh\nkill -9 $$\n")
    dying.chmod(0o755)
    spec = make_spec(ROWS, config=CONFIG.model_copy(update={"launcher": (str(dying),)}))
    with pytest.raises(TrainingKilledError, match=r"signal 9.*goes on from its last checkpoint.*is empty"):
        run_stage(spec)


@pytest.mark.slow
def test_a_child_that_hangs_is_killed_and_the_stage_may_be_tried_again(
    make_spec: Callable[..., StageSpec], tmp_path: Path
) -> None:
    spec = make_spec(ROWS, config=CONFIG.model_copy(update={"stall_seconds": 1.0}))
    hanging = tmp_path / "hang"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    config = spec.config.model_copy(update={"launcher": (str(hanging),)})
    started = time.monotonic()
    with pytest.raises(TrainingStalledError, match="took no step for 1 s"):
        run_stage(spec.model_copy(update={"config": config}))
    assert time.monotonic() - started < 20


@pytest.mark.slow
def test_a_stage_whose_examples_are_all_too_long_says_so(make_spec: Callable[..., StageSpec]) -> None:
    spec = make_spec([("long", "p", "1" * 200)])
    with pytest.raises(TrainingError, match=r"stage I of arm heal.*exit code 2[\s\S]*1 were longer than 128"):
        run_stage(spec)
    assert not spec.output_dir.exists()


def test_the_parent_loads_no_torch() -> None:
    code = "import sys, heal_core.sft.launch; print(sorted({'torch', 'trl', 'transformers'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_the_launcher_replaces_the_interpreter(make_spec: Callable[..., StageSpec]) -> None:
    plain, launched = make_spec(ROWS), make_spec(ROWS, config=SftConfig(launcher=("accelerate", "launch")))
    assert child_command(plain, Path("s")) == [sys.executable, "-m", "heal_core.sft", "s"]
    # found beside the interpreter where it is not on the PATH
    program, *rest = child_command(launched, Path("s"))
    assert Path(program).name == "accelerate" and rest == ["launch", "-m", "heal_core.sft", "s"]


def test_progress_is_none_before_the_first_step(tmp_path: Path) -> None:
    assert read_progress(tmp_path / "progress.json") is None
    folders.write_text(
        tmp_path / "progress.json",
        '{"optimizer_step": 3, "num_optimizer_steps": 9, "loss": 0.5}',
        durable=False,
    )
    assert read_progress(tmp_path / "progress.json") == StageProgress(3, 9, 0.5)
