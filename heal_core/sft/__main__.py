"""The training child: `python -m heal_core.sft SPEC.json`, or the same under `accelerate launch`.

Everything that must be set before torch is imported is set here.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from heal_core.children import die_with_parent
from heal_core.errors import HealError, TimeIsUpError
from heal_core.sft import folders
from heal_core.sft.spec import StageSpec, read_spec

EXIT_REFUSED = 2
"""The stage could not be trained, for a reason that was printed."""


def prepare_environment(spec: StageSpec) -> None:
    """Set what torch, transformers and tokenizers read from the environment when they load."""
    # no process is forked from this one, and a stage's texts may be many
    os.environ.update(TOKENIZERS_PARALLELISM="true", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name, value in logger_environment(spec).items():
        os.environ.setdefault(name, value)
    if Path(spec.model_name_or_path).is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"
    if spec.config.num_threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(spec.config.num_threads)
    if spec.config.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif "LOCAL_RANK" not in os.environ:
        # One process trains on one GPU; with several in sight transformers would split batches over them.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]


def logger_environment(spec: StageSpec) -> dict[str, str]:
    """Return where TRL's loggers write and under which project, for who has not set it; keys stay the environment's."""
    names = {"WANDB_PROJECT": "heal"}
    if spec.logging_dir is None:
        return names
    folder = str(spec.logging_dir)
    return {**names, "TENSORBOARD_LOGGING_DIR": folder, "WANDB_DIR": folder, "TRACKIO_DIR": folder}


def main(arguments: list[str]) -> int:
    """Train the stage of the spec file named in `arguments`; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m heal_core.sft SPEC.json\n")
        return EXIT_REFUSED
    try:
        if "LOCAL_RANK" in os.environ:
            die_with_parent()
        spec = read_spec(Path(arguments[0]))
        prepare_environment(spec)
        from heal_core.sft.train import train_stage

        train_stage(spec)
    except TimeIsUpError as error:
        # not an exit code: launchers make a failure of any but 0
        if int(os.environ.get("RANK", "0")) == 0:
            folders.write_text(folders.stopped_path(spec.output_dir), str(error))
    except HealError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
