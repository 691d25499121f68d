"""The student as it is trained: weights in float32, or frozen under an adapter, and how it is written down.

Imports torch and transformers when called. Which stage it comes from is told by its folder: one
that an adapter was trained into holds it in `adapter/`, or is the adapter.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heal_core.engines.settings import ADAPTER_CONFIG, adapter_base, read_json
from heal_core.errors import TrainingError
from heal_core.sft.config import LoraConfig
from heal_core.sft.spec import StageSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ADAPTER_DIR = "adapter"


def load_tokenizer(spec: StageSpec) -> tuple[PreTrainedTokenizerBase, int, int]:
    """Return the student's tokenizer, the longest example allowed and the size of its vocabulary.

    Raises:
        TrainingError: If there is no such student.
    """
    from transformers import AutoConfig, AutoTokenizer

    source: dict[str, Any] = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec.model_name_or_path, **source)
        config = AutoConfig.from_pretrained(spec.model_name_or_path, **source).get_text_config()
    except (OSError, ValueError) as error:
        raise TrainingError(f"{spec.label}: cannot load the student {spec.model_name_or_path}: {error}") from error
    context_tokens = getattr(config, "max_position_embeddings", None) or spec.config.max_length
    return tokenizer, min(spec.config.max_length, context_tokens), config.vocab_size


def load_model(spec: StageSpec, end_id: int, *, is_bfloat16: bool) -> Any:
    """Return the student, with `end_id` among the tokens that stop its generation.

    Its weights are float32. Under an adapter they are frozen, in bfloat16 where that is computed
    in, and the adapter alone is float32; one that the stage before trained goes on.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    lora = spec.config.lora
    folder = Path(spec.model_name_or_path)
    trained = _trained_adapter(folder)
    dtype = torch.bfloat16 if lora is not None and is_bfloat16 else torch.float32
    model: Any
    if lora is None and trained == folder:
        raise TrainingError(
            f"{spec.label}: {folder} holds an adapter without merged weights, which full training cannot start "
            "from; set sft.lora as it was trained, or train that with sft.lora.save=merged"
        )
    if lora is None:
        model = _load(spec, spec.model_name_or_path, dtype)
    elif trained is not None and _matches(trained, lora):
        from peft import PeftModel

        model = _load(spec, _base_of(trained), dtype)
        model = PeftModel.from_pretrained(model, str(trained), is_trainable=True)
    elif trained == folder:
        raise TrainingError(
            f"{spec.label}: {folder} holds an adapter of other settings than sft.lora, without merged weights; set "
            "sft.lora as it was trained"
        )
    else:
        from peft import LoraConfig as PeftLora
        from peft import get_peft_model

        model = _load(spec, spec.model_name_or_path, dtype)
        torch.manual_seed(spec.config.seed)  # the adapter begins at random
        settings = PeftLora(
            r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, bias="none", task_type="CAUSAL_LM",
            target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
        )  # fmt: skip
        try:
            model = get_peft_model(model, settings)
        except ValueError as error:
            raise TrainingError(f"{spec.label}: sft.lora.target_modules {lora.target_modules}: {error}") from error
    _stop_at(model, end_id)
    return model


def adapter_dir(folder: Path, lora: LoraConfig) -> Path:
    """Return where a stage's folder holds its adapter."""
    return folder if lora.save == "adapter" else folder / ADAPTER_DIR


def finish_adapter(spec: StageSpec, lora: LoraConfig, folder: Path, end_id: int) -> None:
    """Make a stage's folder of the adapter that stands in it: a model of its own with `merged`, else a small one.

    Beside an adapter alone stands the config of what it belongs onto, which says the longest context and the like.
    Merged weights are float32, in which an adapter's small changes are not lost.
    """
    import torch
    from peft import PeftModel

    adapter = adapter_dir(folder, lora)
    for path in adapter.iterdir():
        # among the rest are a form that nobody filled in and a pickle of paths on this machine
        if not path.name.startswith("adapter_"):
            path.unlink()
    base: Any = _load(spec, _base_of(adapter), torch.float32)
    _stop_at(base, end_id)
    if lora.save == "adapter":
        base.config.save_pretrained(folder)
        base.generation_config.save_pretrained(folder)
    else:
        PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().save_pretrained(folder)


def _load(spec: StageSpec, source: str, dtype: Any) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        source, revision=spec.revision, trust_remote_code=spec.trust_remote_code, dtype=dtype
    )
    return model


def _trained_adapter(folder: Path) -> Path | None:
    """Return where a folder holds an adapter that was trained: in itself, or beside merged weights."""
    return next((place for place in (folder, folder / ADAPTER_DIR) if (place / ADAPTER_CONFIG).is_file()), None)


def _base_of(adapter: Path) -> str:
    base = adapter_base(adapter)
    assert base is not None, "an adapter's folder holds its config"
    return base


def _matches(adapter: Path, lora: LoraConfig) -> bool:
    """Return whether an adapter has the shape that the settings ask for."""
    found = read_json(adapter / ADAPTER_CONFIG)
    wanted = lora.target_modules
    return (found["r"], found["lora_alpha"], found["lora_dropout"]) == (lora.r, lora.alpha, lora.dropout) and (
        wanted == "all-linear" or set(found["target_modules"]) == set(wanted)
    )


def _stop_at(model: Any, end_id: int) -> None:
    stop = model.generation_config.eos_token_id
    stop_ids = [] if stop is None else [stop] if isinstance(stop, int) else list(stop)
    if end_id not in stop_ids:
        model.generation_config.eos_token_id = [*stop_ids, end_id]
