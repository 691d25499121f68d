"""What a stage is trained on and in which order, seen from the trainer's side, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from heal_core.engines.base import EngineConfig
from heal_core.engines.loading import load
from heal_core.errors import TrainingError
from heal_core.sft import trainer
from heal_core.sft.__main__ import logger_environment
from heal_core.sft.config import LoraConfig, SftConfig
from heal_core.sft.data import training_order
from heal_core.sft.spec import StageResult, StageSpec, training_key
from heal_core.sft.train import train_stage

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("sft_train")]

# lengths from 13 to 53 tokens: 11 of the prompt, the response, and the end of the turn
ROWS = [(f"e{i}", f"{i:02d} + 1 =", "so " * (i % 5 * 3) + f"{i + 1:02d}") for i in range(19)]
LONG = ("long", "p", "1" * 200)
CONFIG = SftConfig(learning_rate=3e-3, num_threads=1, device="cpu", dtype="float32")

MakeSpec = Callable[..., StageSpec]


def with_config(spec: StageSpec, **changes: Any) -> StageSpec:
    return spec.model_copy(update={"config": spec.config.model_copy(update=changes)})


def weights(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_file(folder / "model.safetensors"))


@pytest.fixture
def spec(make_spec: MakeSpec) -> StageSpec:
    return make_spec([*ROWS[:4], LONG, *ROWS[4:]], num_optimizer_steps=6, config=CONFIG)


def test_the_trainer_reads_each_example_where_the_plan_has_it(spec: StageSpec) -> None:
    result = train_stage(spec)
    read = [position for step in result.steps for position in step.positions]
    # the fifth example of the file is too long: no position 4, and those behind it keep theirs
    positions = [position for position in range(20) if position != 4]
    ids = [row[0] for row in ROWS]
    assert read == [positions[i] for i in training_order(ids, 48, spec.config.seed)]
    assert read[:19] == positions and sorted(read[19:38]) == positions and read[19:38] != positions
    assert {len(step.positions) for step in result.steps} == {8}
    lengths = dict(zip(positions, (12 + len(row[2]) for row in ROWS), strict=True))
    assert [step.num_tokens for step in result.steps] == [
        sum(lengths[p] for p in step.positions) for step in result.steps
    ]
    assert sum(step.num_tokens or 0 for step in result.steps) == result.num_tokens
    assert all(step.seconds and step.seconds > 0 for step in result.steps)


@pytest.mark.parametrize("limit", [trainer._WHOLE_LOGITS_LIMIT, 0, 64 * 261], ids=["whole", "tiled", "both"])
def test_micro_batches_change_no_loss_and_no_gradient(
    spec: StageSpec, tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # of 64 tokens at most the logits are made whole, TRL's tiled loss has the rest
    monkeypatch.setattr(trainer, "_WHOLE_LOGITS_LIMIT", limit)

    def train(name: str, **changes: Any) -> StageResult:
        return train_stage(with_config(spec, **changes).model_copy(update={"output_dir": tmp_path / name}))

    # attention dropout is drawn per pass, so that the student here must have none
    student = tmp_path / "student"
    shutil.copytree(spec.model_name_or_path, student)
    settings = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**settings, "attention_dropout": 0.0}))
    spec = spec.model_copy(update={"model_name_or_path": str(student)})
    whole = train("whole")
    results = [train("single", per_device_train_batch_size=1), train("budget", micro_batch_tokens=100)]
    assert [r.preflight.num_micro_batches for r in results] == [48, pytest.approx(20, abs=5)]
    for other in results:
        assert [s.loss for s in other.steps] == pytest.approx([s.loss for s in whole.steps], abs=1e-5)
        assert [s.grad_norm for s in other.steps] == pytest.approx([s.grad_norm for s in whole.steps], abs=1e-4)
        assert [s.positions for s in other.steps] == [s.positions for s in whole.steps]
    for name, values in weights(tmp_path / "whole").items():
        np.testing.assert_allclose(weights(tmp_path / "single")[name], values, atol=1e-5)


def test_the_first_loss_is_the_models_own_over_the_first_step(spec: StageSpec, tokenizer: Any) -> None:
    import torch

    model = AutoModelForCausalLM.from_pretrained(spec.model_name_or_path).eval()
    result = train_stage(with_config(spec, learning_rate=1e-9))
    sums, num = 0.0, 0
    for _, prompt, response in ROWS[:8]:
        prompt_ids = tokenizer.encode(f"<|user|>{prompt}<|end|><|assistant|>")
        ids = prompt_ids + tokenizer.encode(f"{response}<|end|>")
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums -= sum(float(logprobs[i - 1, ids[i]]) for i in range(len(prompt_ids), len(ids)))
        num += len(ids) - len(prompt_ids)
    # dropout is on in training
    assert result.steps[0].loss == pytest.approx(sums / num, abs=0.05)


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    path = tmp_path / "held_out.jsonl"
    rows = [{"example_id": f"h{i}", "prompt": f"{i + 50} + 1 =", "response": f"{i + 51}" * (i + 1)} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_loss_on_held_out_solutions_is_the_mean_over_their_tokens(
    spec: StageSpec, held_out: Path, tokenizer: Any
) -> None:
    import torch

    result = train_stage(spec.model_copy(update={"held_out_path": held_out}))
    assert [(row.step, row.num_examples, row.num_tokens) for row in result.held_out] == [(0, 3, 15), (6, 3, 15)]
    for row, folder in zip(result.held_out, (spec.model_name_or_path, spec.output_dir), strict=True):
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        sums = 0.0
        for i in range(3):
            prompt_ids = tokenizer.encode(f"<|user|>{i + 50} + 1 =<|end|><|assistant|>")
            ids = prompt_ids + tokenizer.encode(f"{i + 51}" * (i + 1) + "<|end|>")
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
            sums -= sum(float(logprobs[j - 1, ids[j]]) for j in range(len(prompt_ids), len(ids)))
        # 2, 4 and 6 digits, and an end of turn each
        assert row.loss == pytest.approx(sums / 15, abs=1e-4)


def test_held_out_solutions_that_are_all_too_long_are_left_out(spec: StageSpec, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"example_id": "h", "prompt": "p", "response": "1" * 200}) + "\n")
    result = train_stage(spec.model_copy(update={"held_out_path": path}))
    assert result.held_out == () and len(result.steps) == 6


def test_held_out_solutions_and_probes_do_not_change_what_is_learnt(
    spec: StageSpec, held_out: Path, tmp_path: Path
) -> None:
    plain = train_stage(spec)
    watched = train_stage(spec.model_copy(update={"held_out_path": held_out, "output_dir": tmp_path / "watched"}))
    assert [s.loss for s in watched.steps] == [s.loss for s in plain.steps]
    for name, values in weights(spec.output_dir).items():
        np.testing.assert_array_equal(weights(tmp_path / "watched")[name], values)


def test_one_adapter_is_trained_through_the_stages(spec: StageSpec, tmp_path: Path) -> None:
    first = train_stage(with_config(spec, lora=LoraConfig(r=4)))
    assert first.num_trained_parameters is not None and first.num_parameters is not None
    assert 0 < first.num_trained_parameters < first.num_parameters
    adapter = spec.output_dir / "adapter"
    assert {path.name for path in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    # the merged weights are the student's plus B A alpha / r
    before, after = weights(Path(spec.model_name_or_path)), weights(spec.output_dir)
    assert before.keys() == after.keys()
    name = "model.layers.0.self_attn.q_proj"
    parts = load_file(adapter / "adapter_model.safetensors")
    a, b = (parts[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    np.testing.assert_allclose(after[f"{name}.weight"], before[f"{name}.weight"] + b @ a * (32 / 4), atol=1e-5)
    np.testing.assert_array_equal(after["model.embed_tokens.weight"], before["model.embed_tokens.weight"])
    # the next stage goes on with it: without a step worth the name it is as it was
    second = with_config(spec, lora=LoraConfig(r=4, save="adapter"), learning_rate=1e-12).model_copy(
        update={"model_name_or_path": str(spec.output_dir), "output_dir": tmp_path / "II"}
    )
    train_stage(second)
    assert not (tmp_path / "II" / "model.safetensors").exists()
    for key, values in load_file(tmp_path / "II" / "adapter_model.safetensors").items():
        np.testing.assert_allclose(values, parts[key], atol=1e-8)
    # PEFT loads the adapter alone onto the student that it names, and so does the engine
    peft = pytest.importorskip("peft")
    model = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "II")
    assert "lora" in "".join(name for name, _ in model.named_parameters())
    loaded = load(EngineConfig(model_name_or_path=str(tmp_path / "II"), dtype="float32", device="cpu"), tmp_path / "II")
    state = loaded.model.state_dict()
    np.testing.assert_allclose(state[f"{name}.weight"].numpy(), after[f"{name}.weight"], atol=1e-6)


def test_an_adapter_of_other_settings_cannot_go_on(spec: StageSpec, tmp_path: Path) -> None:
    train_stage(with_config(spec, lora=LoraConfig(r=4, save="adapter")))
    following = spec.model_copy(update={"model_name_or_path": str(spec.output_dir), "output_dir": tmp_path / "II"})
    with pytest.raises(TrainingError, match="an adapter without merged weights, which full training cannot start from"):
        train_stage(following)
    with pytest.raises(TrainingError, match=r"an adapter of other settings than sft\.lora"):
        train_stage(with_config(following, lora=LoraConfig(r=8)))
    nowhere = with_config(spec, lora=LoraConfig(target_modules=("nothing",)))
    with pytest.raises(TrainingError, match=r"sft\.lora\.target_modules \('nothing',\)"):
        train_stage(nowhere.model_copy(update={"output_dir": tmp_path / "nowhere"}))


def test_the_faster_precision_is_found_once_and_kept(spec: StageSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    from heal_core.sft import folders, probe

    seconds = {None: 2.0, "bf16": 1.0}
    monkeypatch.setattr(probe, "_pass_seconds", lambda trainer, batch, dtype: seconds["bf16" if dtype else None])
    result = train_stage(with_config(spec, dtype="fastest"))
    assert (result.dtype, result.preflight.dtype) == ("bfloat16", "bfloat16")
    other = with_config(spec, dtype="fastest").model_copy(update={"output_dir": spec.output_dir.with_name("other")})
    # what a killed attempt chose holds, whatever is faster by now; but not what another training chose
    for key, dtype in ((training_key(other), "float32"), ("another", "bfloat16")):
        folders.partial_dir(other.output_dir).mkdir(parents=True, exist_ok=True)
        folders.claim_partial(other.output_dir, key)
        folders.dtype_path(other.output_dir).write_text("float32")
        assert train_stage(other).dtype == dtype
        shutil.rmtree(other.output_dir)


def test_what_is_logged_reaches_a_logger(
    spec: StageSpec, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    changed = with_config(spec, report_to=("tensorboard",))
    changed = changed.model_copy(update={"held_out_path": held_out, "logging_dir": tmp_path / "logs"})
    for name, value in logger_environment(changed).items():
        monkeypatch.setenv(name, value)
    train_stage(changed)
    events = accumulators.EventAccumulator(str(tmp_path / "logs")).Reload()
    wanted = {"loss", "learning_rate", "grad_norm", "tokens_per_second"}
    assert {f"train/{name}" for name in wanted} | {"eval/loss"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
