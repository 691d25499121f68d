"""P5: an epoch of SFT over examples of long-tailed lengths, beside TRL's own defaults and packing modes.

Each side has the same examples, each once, in the same order, with nothing dropped, and its own
copy of the student. TRL's packing puts several examples into one row as long as the longest of
them, with as many rows per step as make about the same tokens. Timed is `trainer.train()`; what
is compared is trained tokens (those that carry loss) per second. The losses of HEAL and of TRL's
defaults are of the same steps, and their largest difference is printed; packed steps hold others.

    python -m benchmarks.sft [--model FOLDER] [--examples 96] [--median 100] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import interleave, print_report, ratio, spread, timed
from heal_core.chat import end_of_turn_id
from heal_core.sft.config import SftConfig
from heal_core.sft.data import Example
from heal_core.sft.model import load_model, load_tokenizer
from heal_core.sft.spec import StageSpec
from heal_core.sft.tokenised import StoredExamples, tokenise_cached

LAB = Path("deployments/lab")
BATCH = 8
PACKING = ("bfd", "bfd_split", "wrapped")
SIDES = ("heal", "trl", *(f"trl_{name}" for name in PACKING))


class World:
    """The examples, tokenised once; `losses` are those of each side's last run, step by step."""

    def __init__(self, asked: argparse.Namespace, folder: Path) -> None:
        self.folder = folder
        config = SftConfig(
            learning_rate=1e-4, batch_size=BATCH, dtype=asked.dtype, device="cpu", num_held_out=0, max_length=10**6
        )
        self.spec = StageSpec(
            stage="I", arm="benchmark", model_name_or_path=asked.model, examples_path=folder / "none.jsonl",
            num_optimizer_steps=asked.examples // BATCH, output_dir=folder / "out", config=config,
        )  # fmt: skip
        self.tokenizer, longest, _ = load_tokenizer(self.spec)
        texts = make_texts(asked.examples, asked.median)
        self.examples: StoredExamples
        self.examples, dropped = tokenise_cached(texts, self.tokenizer, longest, folder)
        assert not dropped, "the context of this model is too short for the examples"
        self.lengths = [len(example.input_ids) for example in self.examples]
        self.num_trained = sum(len(example.input_ids) - example.num_prompt_tokens for example in self.examples)
        self.losses: dict[str, list[float]] = {}

    def seconds(self, side: str) -> float:
        """Return how long a side trains; loading is left out."""
        trainer = self._heal() if side == "heal" else self._trl(side.partition("_")[2])
        seconds = timed(trainer.train)
        self.losses[side] = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        return seconds

    def _model(self) -> Any:
        return load_model(self.spec, end_of_turn_id(self.tokenizer), is_bfloat16=False)

    def _heal(self) -> Any:
        from heal_core.sft.trainer import build_trainer

        return build_trainer(
            self.spec, self._model(), self.tokenizer, self.examples, range(len(self.examples)), None,
            is_bfloat16=self.spec.config.dtype == "bfloat16", num_processes=1,
        )  # fmt: skip

    def _trl(self, packing: str) -> Any:
        import datasets
        from transformers import PrinterCallback
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        datasets.disable_progress_bars()
        rows = [
            {
                "input_ids": example.input_ids,
                "completion_mask": [int(i >= example.num_prompt_tokens) for i in range(len(example.input_ids))],
            }
            for example in self.examples
        ]
        longest = max(self.lengths)
        batch = max(1, round(BATCH * np.mean(self.lengths) / longest)) if packing else BATCH
        # what is not named is TRL's default
        arguments = SFTConfig(
            output_dir=str(self.folder / "trl"),
            num_train_epochs=1,
            per_device_train_batch_size=batch,
            learning_rate=1e-4,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            weight_decay=1e-4,
            adam_beta2=0.95,
            bf16=self.spec.config.dtype == "bfloat16",
            use_cpu=True,
            max_length=longest if packing else None,
            packing=bool(packing),
            completion_only_loss=True,  # its default for prompts and completions, which these are, tokenised
            packing_strategy=packing or "bfd",
            train_sampling_strategy="sequential",
            shuffle_dataset=False,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            log_level="error",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # packed rows without FlashAttention see each other, which TRL says
            trainer = SFTTrainer(
                self._model(),
                arguments,
                train_dataset=datasets.Dataset.from_list(rows),
                processing_class=self.tokenizer,
            )
        trainer.remove_callback(PrinterCallback)
        return trainer


def make_texts(num: int, median_tokens: int) -> list[Example]:
    """Return examples whose responses have log-normal lengths, cut at eight times the median."""
    rng = np.random.default_rng(0)
    lengths = np.clip(np.exp(rng.normal(np.log(median_tokens), 0.8, num)), 8, 8 * median_tokens)
    words = ["plus", "is", "so", "3", "17", "then", "add", "and", "we", "have"]
    texts = []
    for number, length in enumerate(lengths):
        body = " ".join(words[i] for i in rng.integers(0, len(words), max(2, int(length / 2))))
        texts.append(Example(f"e{number}", f"{number} and some more, what is it?", body))
    return texts


def measure_peak(asked: argparse.Namespace, side: str) -> float:
    """Return the peak memory in MiB of a process in which one side trains alone."""
    command = [sys.executable, "-m", "benchmarks.sft", "--only", side]
    for name in ("model", "examples", "median", "dtype"):
        command += [f"--{name}", str(getattr(asked, name))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["peak_mib"])


def main() -> None:
    """Print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(LAB / "student"))
    parser.add_argument("--examples", type=int, default=96)
    parser.add_argument("--median", type=int, default=100, help="tokens of a response, about")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=SIDES, help="train this side once and print its peak memory")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = World(asked, Path(folder))
        if asked.only:
            world.seconds(asked.only)
            print(json.dumps({"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}))
            return
        sides: dict[str, Callable[[], float]] = {side: (lambda side=side: world.seconds(side)) for side in SIDES}  # type: ignore[misc]
        for side in sides.values():
            side()  # the first run of each is slower
        seconds = interleave(sides, asked.rounds)
        pairs = zip(world.losses["heal"], world.losses["trl"], strict=True)
        print_report(
            "sft",
            {
                **vars(asked),
                "num_trained_tokens": world.num_trained,
                "longest_tokens": max(world.lengths),
                "seconds": {side: spread(times) for side, times in seconds.items()},
                "trained_tokens_per_second": {
                    side: round(world.num_trained / float(np.median(times))) for side, times in seconds.items()
                },
                "speed_over": {side: ratio(seconds[side], seconds["heal"]) for side in SIDES[1:]},
                "largest_loss_difference": max(abs(a - b) for a, b in pairs),
                "peak_mib": {side: round(measure_peak(asked, side)) for side in SIDES},
            },
        )


if __name__ == "__main__":
    main()
