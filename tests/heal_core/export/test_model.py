"""A stage in a store goes out as a folder: what is in it, what is not, and what transformers and PEFT make of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from heal_core.errors import InputError, ModelError
from heal_core.export.folder import check_folder
from heal_core.sft.config import SftConfig
from heal_core.sft.launch import run_stage
from heal_core.sft.spec import StageSpec
from heal_core.sft.weights import weights_dtype
from heal_core.store.workspace import Workspace

Row = dict[str, Any]
Export = Callable[..., Any]

BASE = "ann/student-0.4m"


def test_the_folder_holds_the_model_and_nothing_of_heals(
    export: Export, checkpoint: Path, workspace: Workspace
) -> None:
    exported = export(license="apache-2.0", languages=("en",))
    assert set(exported.files) == {
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert (exported.dtype, exported.is_adapter, exported.base_model) == ("float32", False, BASE)
    for name in ("model.safetensors", "chat_template.jinja", "tokenizer.json"):
        assert (exported.path / name).read_bytes() == (checkpoint / name).read_bytes()
    told = b"".join(path.read_bytes() for path in exported.path.iterdir() if path.suffix != ".safetensors")
    assert str(workspace.root).encode() not in told and b"/home/ann" not in told
    assert [path.name for path in exported.path.parent.glob("exported*")] == ["exported"]


def test_the_card_says_what_the_store_knows(export: Export) -> None:
    card = ModelCard.load(export(license="apache-2.0", languages=("en",)).path / "README.md")
    data = card.data.to_dict()
    wanted = {"license": "apache-2.0", "language": ["en"], "library_name": "transformers", "base_model": BASE,
              "datasets": ["ann/sums"], "pipeline_tag": "text-generation"}  # fmt: skip
    assert {key: data[key] for key in wanted} == wanted
    assert {"heal", "distillation"} <= set(data["tags"])
    assert [(r.metric_type, r.metric_value) for r in card.data.eval_results] == [("avg@4", 0.5), ("pass@4", 0.75)]
    lines = card.text.splitlines()
    assert "| all | 9 | HEAL | 50.0 | 6.2 | 75.0 | 0.0 |" in lines
    assert "| all | 9 | some_new_arm | 25.0 | 6.2 | 75.0 | 0.0 |" in lines
    assert "| of aime | 9 | HEAL | 75.0 | 6.2 | 75.0 | 0.0 |" in lines
    assert "| III | 2 | 7 | 99 | 0.500 | 0.250 |" in lines
    assert "| III | 1 | 5 |" in lines  # dropped, trained on
    assert "| sums.jsonl | train | 1 |" in lines and "| git revision | abc |" in lines
    assert "Please reason step by step, and put your final answer within \\boxed{}." in lines
    assert "temperature 0.6, top_p 0.95, max_tokens 64" in card.text
    assert "the teacher is teacher." in card.text


def test_without_a_licence_none_is_stated(export: Export) -> None:
    card = ModelCard.load(export().path / "README.md")
    assert card.data.license is None and "Licence: not stated." in card.text


def test_what_is_there_stays_unless_it_was_exported_and_force_is_given(export: Export, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    check_folder(mine, force=False)  # an empty one
    (mine / "README.md").write_text("# Notes\n- heal\n")
    with pytest.raises(InputError, match="exists already"):
        check_folder(mine, force=False)
    with pytest.raises(InputError, match="remove it yourself"):
        check_folder(mine, force=True)
    exported = export()
    check_folder(exported.path, force=True)
    (exported.path / "model.safetensors").write_text("old")
    assert weights_dtype(export(dtype="bfloat16").path) == "bfloat16"
    assert [path.name for path in tmp_path.glob("exported*")] == ["exported"]


def _replace_and_stop(new: Path, old: Path, stop: str) -> subprocess.CompletedProcess[str]:
    """Put a folder in the place of another in a process that ends by `stop` while nothing has the name."""
    program = (
        "import os, sys; from pathlib import Path; from heal_core.export import folder\n"
        f"def stop(*_): {stop}\n"
        "folder.replace_file = stop\n"
        "folder.put_in_place(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    return subprocess.run([sys.executable, "-c", program, str(new), str(old)], capture_output=True, text=True)


def test_what_a_kill_left_of_a_replaced_folder_gets_its_name_back(export: Export, tmp_path: Path) -> None:
    path = export().path
    (path / "mine.txt").write_text("of the old one")
    new = shutil.copytree(path, tmp_path / "new")
    failed = _replace_and_stop(new, path, "raise OSError('no')")
    assert failed.returncode == 1 and (path / "mine.txt").is_file()  # at once
    killed = _replace_and_stop(new, path, "os.kill(os.getpid(), 9)")
    assert killed.returncode == -9 and not path.exists()
    (tmp_path / "exported.1.old").mkdir()  # nothing that was exported
    with pytest.raises(InputError, match="exists already"):
        check_folder(path, force=False)
    assert (path / "mine.txt").is_file()
    assert [folder.name for folder in tmp_path.glob("exported*.old")] == ["exported.1.old"]


def test_a_stage_that_cannot_be_exported_is_told(export: Export, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no trained stage I of arm 'heal'"):
        export(stage="I")
    with pytest.raises(InputError, match="has no adapter: all weights were trained"):
        export(as_adapter=True)
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:99])
    with pytest.raises(ModelError, match=r"is damaged: model\.safetensors"):
        export()
    shutil.rmtree(checkpoint)
    with pytest.raises(ModelError, match="is gone"):
        export()
    assert not list(tmp_path.glob("exported*"))


# ---- loaded by transformers


def greedy(folder: Path, **settings: Any) -> list[int]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, **settings)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    turns = [{"role": "user", "content": "Work modulo 100. Start with 5.\n1. Add 4.\nWhat is the result?"}]
    inputs = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output: list[int] = model.generate(**inputs, do_sample=False, max_new_tokens=24)[0].tolist()
    return output


@pytest.mark.slow
def test_transformers_gives_the_tokens_of_the_checkpoint(export: Export, checkpoint: Path) -> None:
    import torch

    exported = export()
    assert greedy(exported.path) == greedy(checkpoint)
    shutil.rmtree(exported.path)
    halved = export(dtype="bfloat16")
    assert halved.what == "whole weights in bfloat16"
    assert halved.num_bytes < 0.7 * sum(path.stat().st_size for path in checkpoint.iterdir())
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(halved.path, local_files_only=True)
    assert loaded.dtype == torch.bfloat16
    assert greedy(halved.path) == greedy(checkpoint, dtype=torch.bfloat16)


# ---- adapters


@pytest.fixture
def adapter(checkpoint: Path, lab_student: Path) -> Path:
    """An adapter beside the merged weights, as a stage that is trained with LoRA leaves it."""
    peft = pytest.importorskip("peft", reason="LoRA is an extra: peft is not installed")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(lab_student, local_files_only=True)
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    folder = checkpoint / "adapter"
    peft.get_peft_model(model, lora).save_pretrained(folder)
    return folder


def test_an_adapter_names_its_base_as_the_user_did(export: Export, adapter: Path) -> None:
    noted = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(noted).is_absolute()
    whole = export()
    assert not whole.is_adapter and "adapter_config.json" not in whole.files
    shutil.rmtree(whole.path)
    exported = export(as_adapter=True)
    assert exported.is_adapter and exported.what == "a LoRA adapter in float32"
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= set(exported.files)
    assert "model.safetensors" not in exported.files
    assert json.loads((exported.path / "adapter_config.json").read_text())["base_model_name_or_path"] == BASE
    card = ModelCard.load(exported.path / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("peft", BASE)


@pytest.mark.parametrize("base_student", ["/home/ann/models/student", "../models/student/", "ann/models/student"])
def test_an_adapter_onto_a_folder_says_its_last_part_and_goes_to_the_hub_with_an_id_alone(
    export: Export, adapter: Path, base_student: str
) -> None:
    with pytest.raises(InputError, match=r"a folder that nobody has.*--base-model OWNER/NAME"):
        export(as_adapter=True, for_hub=True)
    exported = export(as_adapter=True)
    config = exported.path / "adapter_config.json"
    assert json.loads(config.read_text())["base_model_name_or_path"] == exported.base_model == "student"
    assert ModelCard.load(exported.path / "README.md").data.base_model is None
    shutil.rmtree(exported.path)
    export(as_adapter=True, for_hub=True, base_model=BASE)
    assert json.loads(config.read_text())["base_model_name_or_path"] == BASE
    assert ModelCard.load(exported.path / "README.md").data.base_model == BASE
    shutil.rmtree(exported.path)
    assert export(for_hub=True).what == "whole weights in float32"


def test_a_base_model_that_is_no_hub_id_is_refused(export: Export, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--base-model /home/ann/student: expected an id of the hub"):
        export(base_model="/home/ann/student")
    assert not (tmp_path / "exported").exists()


def test_peft_loads_an_exported_adapter(export: Export, adapter: Path, lab_student: Path) -> None:
    import peft
    from transformers import AutoModelForCausalLM

    exported = export(as_adapter=True)

    def logits(folder: Path) -> Any:
        import torch

        base = AutoModelForCausalLM.from_pretrained(lab_student, local_files_only=True)
        with torch.no_grad():
            return peft.PeftModel.from_pretrained(base, folder)(torch.arange(5, 15)[None]).logits

    assert logits(exported.path).equal(logits(adapter))


def test_a_stage_of_an_adapter_alone_says_so(export: Export, adapter: Path, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    for file in adapter.iterdir():
        file.replace(checkpoint / file.name)
    adapter.rmdir()
    assert export().what == "a LoRA adapter in float32"


def test_an_adapter_to_an_earlier_checkpoint_is_refused(export: Export, adapter: Path, workspace: Workspace) -> None:
    config = adapter / "adapter_config.json"
    noted = {"base_model_name_or_path": str(workspace.checkpoints / "c2")}
    config.write_text(json.dumps({**json.loads(config.read_text()), **noted}))
    with pytest.raises(ModelError, match=r"earlier checkpoint \(c2\)"):
        export(as_adapter=True)


@pytest.mark.full
@pytest.mark.parametrize("save", ["merged", "adapter"])
def test_what_training_with_lora_leaves_goes_out(
    export: Export, checkpoint: Path, lab_student: Path, tmp_path: Path, save: str
) -> None:
    peft = pytest.importorskip("peft", reason="LoRA is an extra: peft is not installed")
    import torch
    from transformers import AutoModelForCausalLM

    shutil.rmtree(checkpoint)
    rows = [{"example_id": f"e{i}", "prompt": f"What is {i} + 1?", "response": f"It is {i + 1}."} for i in range(8)]
    examples = tmp_path / "examples.jsonl"
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = SftConfig(learning_rate=0.01, num_threads=1, device="cpu", lora={"r": 2, "save": save})
    spec = StageSpec(
        stage="III", arm="heal", model_name_or_path=str(lab_student), examples_path=examples, num_optimizer_steps=2,
        output_dir=checkpoint, config=config,
    )  # fmt: skip
    run_stage(spec)
    exported = export(as_adapter=True)
    assert exported.is_adapter and "result.json" not in exported.files and "complete.json" not in exported.files
    told = b"".join(path.read_bytes() for path in exported.path.iterdir() if path.suffix != ".safetensors")
    assert str(lab_student).encode() not in told and str(tmp_path).encode() not in told
    base = AutoModelForCausalLM.from_pretrained(lab_student, local_files_only=True)
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad():
        untrained = base(tokens).logits.clone()
        trained = peft.PeftModel.from_pretrained(base, exported.path)(tokens).logits
    assert not torch.allclose(trained, untrained, atol=1e-2)
    shutil.rmtree(exported.path)
    again = export()
    assert again.is_adapter == (save == "adapter")
    if save == "merged":
        whole = AutoModelForCausalLM.from_pretrained(again.path, local_files_only=True)
        with torch.no_grad():
            assert torch.allclose(whole(tokens).logits, trained, atol=1e-4)
