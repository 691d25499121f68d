"""A trained stage -> a Hugging Face folder that others can load, with a model card and without anything of HEAL's own.

What does not belong here: the card (`card`), what the folder replaces where it stands (`folder`), pushing it (`hub`).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from heal_core.engines.identity import TEMPLATE_FILES, TOKENIZER_FILES
from heal_core.engines.settings import ADAPTER_CONFIG, BASE_KEY
from heal_core.errors import InputError, ModelError, StoreError
from heal_core.export.card import CardChoices, make_card
from heal_core.export.folder import CARD_FILE, put_in_place
from heal_core.export.names import has_hub_form, is_hub_id, last_part
from heal_core.sft.folders import find_faults
from heal_core.sft.model import ADAPTER_DIR
from heal_core.sft.weights import INDEX_FILE, WEIGHT_SUFFIX, cast_config, cast_weights, resize_index, weights_dtype
from heal_core.store.durable import disk_full
from heal_core.store.examples import read_trained_stage
from heal_core.store.inspect import Connection
from heal_core.store.model_card import TrainingFacts, read_training_facts
from heal_core.store.workspace import Workspace

_LEFT_OUT = {CARD_FILE, "result.json", "preflight.json", "complete.json", "training_args.bin"}
"""What a stage's folder holds that is not of the model: HEAL's own reports, and a card that says nothing of the run."""
_LOCAL_KEYS = ("_name_or_path", "name_or_path", "is_local", "local_files_only")
"""Keys of JSON files in which libraries note where on this machine they loaded from."""


@dataclass(frozen=True)
class ModelChoices:
    """What a user may say of a model that is exported; None takes what the run says.

    `for_hub` says that it will be pushed, where others have to find the base of an adapter.
    """

    name: str
    as_adapter: bool = False
    dtype: str | None = None
    license: str | None = None
    base_model: str | None = None
    languages: tuple[str, ...] = ()
    for_hub: bool = False


@dataclass(frozen=True)
class ModelExport:
    """A folder that was written; `what` says in which form it holds the model.

    `base_model` is a hub id, or the last part of the path of a folder of this machine.
    """

    path: Path
    run_id: str
    arm: str
    stage: str
    checkpoint_id: str
    what: str
    dtype: str
    is_adapter: bool
    base_model: str
    num_bytes: int
    files: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "path": str(self.path)}


def export_model(
    store: Connection, workspace: Workspace, run_id: str, arm: str, stage: str, path: Path, choices: ModelChoices
) -> ModelExport:
    """Write the folder of a trained stage, whole or not at all.

    A stage that holds only an adapter is exported as one, whatever was asked for; `ModelExport.what` says so.

    Raises:
        InputError: If the stage is not trained so far, or has no adapter that was asked for; if `base_model` is no hub
            id, or is not given for an adapter that goes to the hub while its base is a folder.
        ModelError: If its checkpoint is gone or damaged.
        StoreError: If the disk is full.
    """
    trained = read_trained_stage(store, run_id, arm, stage)
    if trained is None:
        raise InputError(
            f"run {run_id} has no trained stage {stage} of arm {arm!r} so far. `heal status` says how far it is."
        )
    checkpoint = workspace.root / trained["folder"]
    _check_checkpoint(checkpoint, run_id)
    facts = read_training_facts(store, run_id, arm, stage)
    source, is_adapter = _choose_source(checkpoint, choices.as_adapter, f"stage {stage} of arm {arm}")
    stored = weights_dtype(source)
    dtype = choices.dtype or stored
    base_id, base_model = _name_base(facts, choices)
    if is_adapter and choices.for_hub and base_id is None:
        raise InputError(
            f"the adapter belongs onto {_base_student(facts)}, a folder that nobody has who loads it from the hub: "
            "give the hub id of that model, --base-model OWNER/NAME, or push whole weights."
        )
    what = f"{'a LoRA adapter' if is_adapter else 'whole weights'} in {dtype}"
    card = make_card(
        facts,
        CardChoices(
            name=choices.name,
            base_model=base_id,
            license=choices.license,
            languages=choices.languages,
            what=what,
            is_adapter=is_adapter,
            has_chat_template=_has_chat_template(checkpoint),
        ),
    )
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        _copy(source, temporary, dtype if dtype != stored else None)
        if is_adapter:
            # transformers takes a folder with it for a whole model
            (temporary / "config.json").unlink(missing_ok=True)
            _write_base(temporary / ADAPTER_CONFIG, base_model, workspace, facts.parents)
            _add_tokenizer(checkpoint, temporary)
        (temporary / CARD_FILE).write_text(str(card), encoding="utf-8")
        put_in_place(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return ModelExport(
        path=path,
        run_id=run_id,
        arm=arm,
        stage=stage,
        checkpoint_id=trained["checkpoint_id"],
        what=what,
        dtype=dtype,
        is_adapter=is_adapter,
        base_model=base_model,
        num_bytes=sum(file.stat().st_size for file in files),
        files=tuple(str(file.relative_to(path)) for file in files),
    )


def _check_checkpoint(folder: Path, run_id: str) -> None:
    if not folder.is_dir():
        raise ModelError(
            f"the checkpoint {folder} is gone. The same `heal run` (or `heal retry {run_id}`) trains it again."
        )
    if faults := find_faults(folder):
        raise ModelError(f"the checkpoint {folder} is damaged: {faults[0]}. Remove it, and `heal run` trains it again.")


def _choose_source(checkpoint: Path, as_adapter: bool, label: str) -> tuple[Path, bool]:
    """Return the folder to copy, and whether it holds an adapter.

    A stage trained with LoRA holds merged weights with the adapter beside them, or the adapter alone.
    """
    if (checkpoint / ADAPTER_CONFIG).is_file():
        return checkpoint, True
    if not as_adapter:
        return checkpoint, False
    if not (checkpoint / ADAPTER_DIR / ADAPTER_CONFIG).is_file():
        raise InputError(f"{label} has no adapter: all weights were trained. Leave --adapter out.")
    return checkpoint / ADAPTER_DIR, True


def _name_base(facts: TrainingFacts, choices: ModelChoices) -> tuple[str | None, str]:
    """Return the hub id of the base student, None where it is a folder, and what it is called in either case."""
    if choices.base_model is not None:
        if not has_hub_form(choices.base_model):
            raise InputError(f"--base-model {choices.base_model}: expected an id of the hub, OWNER/NAME or NAME.")
        return choices.base_model, choices.base_model
    student = _base_student(facts)
    return (student, student) if is_hub_id(student) else (None, last_part(student))


def _base_student(facts: TrainingFacts) -> str:
    """Return the base student as the user named it."""
    return str(facts.config["student"]["model_name_or_path"])


def _has_chat_template(folder: Path) -> bool:
    settings = folder / "tokenizer_config.json"
    return (folder / "chat_template.jinja").is_file() or (
        settings.is_file() and "chat_template" in json.loads(settings.read_text(encoding="utf-8"))
    )


def _copy(source: Path, target: Path, dtype: str | None) -> None:
    """Copy the files of a model, and its weights in `dtype` if one is given."""
    for file in _model_files(source):
        _copy_file(file, target / file.name, dtype)
    index = target / INDEX_FILE
    if dtype is not None and index.is_file():
        resize_index(index)


def _copy_file(file: Path, target: Path, dtype: str | None) -> None:
    if file.suffix == WEIGHT_SUFFIX and dtype is not None:
        cast_weights(file, target, dtype)
    elif file.name.endswith("config.json"):
        settings = json.loads(file.read_text(encoding="utf-8"))
        kept = {key: value for key, value in settings.items() if key not in _LOCAL_KEYS}
        if file.name == "config.json" and dtype is not None:
            kept = cast_config(kept, dtype)
        target.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(file, target)


def _model_files(folder: Path) -> Iterable[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name not in _LEFT_OUT and not file.name.startswith(".")
    )


def _add_tokenizer(checkpoint: Path, target: Path) -> None:
    """Copy the tokenizer with its template, which PEFT leaves to the model beside the adapter."""
    for name in (*TOKENIZER_FILES, *TEMPLATE_FILES):
        if (checkpoint / name).is_file() and not (target / name).exists():
            _copy_file(checkpoint / name, target / name, None)


def _write_base(config: Path, base_model: str, workspace: Workspace, other_bases: Sequence[str]) -> None:
    """Let an adapter name its base as others do, not by a folder of this machine.

    Args:
        other_bases: Checkpoints from which training began in place of the base student.

    Raises:
        ModelError: If the adapter is one to such a checkpoint.
    """
    settings = json.loads(config.read_text(encoding="utf-8"))
    noted = Path(str(settings.get(BASE_KEY) or ""))
    if noted.name in other_bases or workspace.checkpoints in noted.parents:
        raise ModelError(
            f"the adapter is one to the weights of an earlier checkpoint ({noted.name}), not to the base model: "
            "export the whole weights, without --adapter."
        )
    settings[BASE_KEY] = base_model
    config.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _cannot_write(path: Path, error: OSError) -> StoreError | InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path)
    return InputError(f"{path} cannot be written: {error.strerror}. Give a place in a folder of yours.")
