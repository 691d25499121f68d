"""Reading texts again for exact entropies, where those of the engine leave the breakpoint open.

Whose engine may do it, and the reading. What does not belong here: which breakpoints are open (`breakpoints`),
and storing what comes of it (`tasks.rescoring`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heal_core.config import RunConfig
from heal_core.engines.base import Capability, Engine, EngineConfig, ScoreRequest
from heal_core.engines.identity import digest_files, find_folder
from heal_core.engines.start import declared_capabilities
from heal_core.errors import ModelError, RequestError


@dataclass(frozen=True)
class GivenTokens:
    """An answer as its model sampled it, token ids of shape [T], after a user turn."""

    trajectory_id: str
    prompt: str
    token_ids: np.ndarray

    @property
    def is_readable(self) -> bool:
        """Whether every token's id is known, which servers need not tell."""
        return bool((self.token_ids >= 0).all())


def find_rescorer(config: RunConfig) -> EngineConfig | None:
    """Return the model that reads the teacher's texts again; None where none may.

    It tells exact entropies and has the teacher's own weights: the scorer, or the teacher itself.
    """
    if config.breakpoints.rescore == "never":
        return None
    for model in (config.scorer, config.teacher):
        if (
            model is not None
            and Capability.EXACT_ENTROPY in declared_capabilities(model)
            and has_same_weights(config.teacher, model)
        ):
            return model
    return None


def has_same_weights(one: EngineConfig, other: EngineConfig) -> bool:
    """Return whether two settings mean one model: by name and revision, else by the files where both are at hand."""
    if (one.model_name_or_path, one.revision) == (other.model_name_or_path, other.revision):
        return True
    digests = [_digest(model) for model in (one, other)]
    return None not in digests and digests[0] == digests[1]


def read_again(engine: Engine, texts: Sequence[GivenTokens]) -> dict[str, np.ndarray]:
    """Return the exact entropy of each token of texts, shape [T], nats, by trajectory.

    Raises:
        ModelError: If the engine does not tell exact entropies.
        RequestError: If a text with its prompt exceeds the context, or entropies are not numbers.
    """
    requests = [
        ScoreRequest(text.trajectory_id, text.prompt, token_ids=tuple(text.token_ids.tolist())) for text in texts
    ]
    entropies: dict[str, np.ndarray] = {}
    for result in engine.score(requests):
        if result.entropies is None or result.entropy_radii is not None:
            raise ModelError(
                f"{engine.description.model_name_or_path} ({engine.description.engine}) does not tell exact entropies, "
                "for which texts are read again: set `scorer` to the same model with the engine hf"
            )
        if not np.isfinite(result.entropies).all():
            raise RequestError(f"trajectory {result.request_id}: read again it has entropies that are not numbers")
        entropies[result.request_id] = result.entropies
    return entropies


def _digest(model: EngineConfig) -> str | None:
    """Return the digest of a model's files with their weights; None where those are not on this disk."""
    try:
        folder = find_folder(model)
        return None if folder is None else digest_files(folder)
    except ModelError:  # a name that only its server knows, or a folder with no more than the tokenizer
        return None
