"""How often the k most probable tokens give the exact breakpoint: D3's intervals beside the whole distribution.

    python -m benchmarks.topk WORKSPACE --model MODEL_FOLDER

What the teacher of a workspace's newest run has sampled there is read again by the same model. Of each distribution the
entropy is taken exactly, and known from the k most probable tokens, as a server tells them. Rollouts in which only one
step can be the breakpoint are counted and left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import print_report
from heal_core.breakpoints import BreakpointConfig
from heal_core.engines.base import EngineConfig
from heal_core.engines.identity import resolve_folder
from heal_core.engines.loading import LoadedModel, load
from heal_core.entropy_bounds import entropy_interval, middle_and_radius
from heal_core.profiles import profile_entropy
from heal_core.prompts import student_prompt
from heal_core.records import EntropyProfile
from heal_core.reference import reference_of
from heal_core.steps import StepsConfig
from heal_core.store.inspect import fetch_rows, open_store

NUM_TOPS = (1, 5, 20, 64)
_KERNEL_ERROR_NATS = 1e-4
"""How far the exact entropy itself, in float32, may be off."""


@dataclass
class Found:
    """What k tokens told of the rollouts so far; widths are those of the tokens' intervals, nats."""

    num_certain: int = 0
    num_certain_right: int = 0
    num_uncertain: int = 0
    num_uncertain_right: int = 0
    num_outside: int = 0
    widths: list[np.ndarray] = field(default_factory=list)

    def add(self, profile: EntropyProfile, is_right: bool) -> None:
        if profile.is_certain:
            self.num_certain += 1
            self.num_certain_right += is_right
        else:
            self.num_uncertain += 1
            self.num_uncertain_right += is_right

    def to_json(self) -> dict[str, Any]:
        """Return counts, and shares of all rollouts; `middle_right` is of the uncertain ones."""
        num = self.num_certain + self.num_uncertain
        median, p99 = np.quantile(np.concatenate(self.widths), [0.5, 0.99])
        return {
            "certain": round(self.num_certain / num, 4),
            "certain_but_wrong": self.num_certain - self.num_certain_right,
            "uncertain": round(self.num_uncertain / num, 4),
            "num_uncertain": self.num_uncertain,
            "middle_right": round(self.num_uncertain_right / self.num_uncertain, 4) if self.num_uncertain else None,
            "right_in_all": round((self.num_certain_right + self.num_uncertain_right) / num, 4),
            "tokens_outside_interval": self.num_outside,
            "width_nats": {"median": float(f"{median:.2g}"), "p99": float(f"{p99:.2g}")},
        }


def read_rollouts(workspace: Path, limit: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the settings of the newest run, and what its teacher sampled in the workspace, with the tokens."""
    with open_store(workspace) as store:
        (run,) = fetch_rows(store, "SELECT config FROM runs ORDER BY rowid DESC LIMIT 1")
        config = json.loads(run["config"])
        rows = fetch_rows(
            store,
            "SELECT t.trajectory_id, t.text, p.*, k.token_ids, k.token_starts FROM trajectories t "
            "JOIN recipes c USING (recipe_id) JOIN problems p USING (problem_id) JOIN tokens k USING (trajectory_id) "
            "WHERE c.kind = 'rollout' AND c.model_name_or_path = ? AND t.num_tokens > 0 "
            "ORDER BY trajectory_id LIMIT ?",
            config["teacher"]["model_name_or_path"],
            limit,
        )
    return config, rows


def statistics_of(loaded: LoadedModel, prompt: str, token_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact entropy of each token, shape [T], and its most probable log-probabilities, falling, [T, M]."""
    import torch

    from heal_core.kernels.entropy import entropy_and_logprobs

    prompt_ids = loaded.prompt_ids(prompt)
    ids = torch.tensor([[*prompt_ids, *token_ids]], device=loaded.device)
    with torch.inference_mode():
        logits = loaded.model(input_ids=ids, use_cache=False, logits_to_keep=len(token_ids) + 1).logits[0, :-1]
        entropy, _ = entropy_and_logprobs(logits, ids[0, len(prompt_ids) :])
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        tops = logprobs.topk(min(max(NUM_TOPS), logits.shape[1]), dim=-1).values
    return entropy.cpu().numpy().astype(np.float64), tops.cpu().numpy()


def measure(
    loaded: LoadedModel, rows: Sequence[dict[str, Any]], steps: StepsConfig, breakpoints: BreakpointConfig
) -> dict[str, Any]:
    """Return what each k told, and of how many rollouts and tokens."""
    found = {num_top: Found() for num_top in NUM_TOPS if num_top <= loaded.description.vocabulary_size}
    num_without_choice = num_tokens = 0
    for row in rows:
        starts = np.asarray(row["token_starts"])
        prompt = student_prompt(row["question"], reference_of(row).wording)
        exact, tops = statistics_of(loaded, prompt, row["token_ids"])
        whole = profile_entropy(row["text"], starts, exact, steps, breakpoints)
        if whole.breakpoint is None or whole.breakpoint.window_size < 2:
            num_without_choice += 1
            continue
        num_tokens += len(exact)
        for num_top, told in found.items():
            low, high = entropy_interval(tops[:, :num_top], loaded.description.vocabulary_size)
            middles, radii = middle_and_radius(low, high)
            profile = profile_entropy(row["text"], starts, middles, steps, breakpoints, radii)
            assert profile.breakpoint is not None
            told.add(profile, profile.breakpoint.step_index == whole.breakpoint.step_index)
            told.num_outside += int(((exact < low - _KERNEL_ERROR_NATS) | (exact > high + _KERNEL_ERROR_NATS)).sum())
            told.widths.append(high - low)
    if not num_tokens:
        raise SystemExit("no rollout has two steps that can be the breakpoint; sample longer ones")
    return {
        "num_rollouts": len(rows) - num_without_choice,
        "num_without_choice": num_without_choice,
        "num_tokens": num_tokens,
        "vocabulary_size": loaded.description.vocabulary_size,
        "dtype": loaded.description.dtype,
        "top": dict(_named(found)),
    }


def _named(found: dict[int, Found]) -> Iterator[tuple[str, dict[str, Any]]]:
    for num_top, told in found.items():
        yield str(num_top), told.to_json()


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--model", required=True, help="the model that sampled the rollouts")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--limit", type=int, default=10_000, help="rollouts")
    asked = parser.parse_args()
    config, rows = read_rollouts(asked.workspace, asked.limit)
    model = EngineConfig(model_name_or_path=asked.model, dtype=asked.dtype)
    loaded = load(model, resolve_folder(model))
    steps = StepsConfig.model_validate(config["steps"])
    figures = measure(loaded, rows, steps, BreakpointConfig.model_validate(config["breakpoints"]))
    print_report("topk", {"model": Path(asked.model).name, **figures})


if __name__ == "__main__":
    main()
