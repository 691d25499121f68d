"""The task that profiles the entropy of a chunk of rollouts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from heal_core import profiles
from heal_core.config import RunConfig
from heal_core.keys import content_key
from heal_core.profiles import profile_entropy
from heal_core.records import EntropyProfile
from heal_core.store.reads import read_known, read_tokens
from tasks.policy import cached_task
from tasks.session import Session

WORK = "profiles"


def profile_key(config: RunConfig, row_id: str) -> str:
    """Return the id of a rollout's profile under the config's step and breakpoint settings."""
    return profiles.profile_key(row_id, config.steps.model_dump(mode="json"), config.breakpoints.identity())


class ProfileWork:
    """The rollouts of one chunk: rows of `read_run_trajectories`."""

    work = WORK
    model = None

    def __init__(self, config: RunConfig, chunks: str, rows: Sequence[Mapping[str, Any]], epoch: str) -> None:
        self.ids = {profile_key(config, row["trajectory_id"]): row["trajectory_id"] for row in rows}
        self.label = f"{self.work} {chunks}"
        self.cache_key = content_key("profile", sorted(self.ids), epoch)
        self._of = (config, chunks, rows, epoch)

    def by_problem(self) -> dict[str, ProfileWork]:
        """Return the same work, cut into one per problem."""
        config, chunks, rows, epoch = self._of
        return {
            problem_id: ProfileWork(config, chunks, own, epoch) for problem_id, own in rows_by_problem(rows).items()
        }


def rows_by_problem(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return rows by their problem, in the order given."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["problem_id"], []).append(row)
    return groups


@cached_task("profile")
def profile_chunk(session: Session, work: ProfileWork) -> int:
    """Return how many profiles were newly made."""
    known = read_known(session.store, "profiles", "profile_id", list(work.ids))
    missing = {profile_id: row_id for profile_id, row_id in work.ids.items() if profile_id not in known}
    tokens = read_tokens(session.store, list(missing.values()))
    rows = []
    for profile_id, row_id in sorted(missing.items()):
        row = tokens[row_id]
        profile = profile_entropy(
            row.text,
            row.token_starts,
            row.entropies,
            session.config.steps,
            session.config.breakpoints,
            row.entropy_radii,
        )
        rows.append(profile_row(profile_id, row_id, profile, row.entropy_source))
    session.store.append("profiles", rows)
    session.count("profiles", len(rows))
    return len(rows)


def profile_row(profile_id: str, trajectory_id: str, profile: EntropyProfile, source: str) -> dict[str, Any]:
    """Return the stored form of a profile; `source` is where its entropies are from."""
    found, radii = profile.breakpoint, profile.step_radii
    return {
        "profile_id": profile_id,
        "trajectory_id": trajectory_id,
        "separator": profile.separator,
        "num_steps": len(profile.steps),
        "step_start_chars": [step.start_char for step in profile.steps],
        "step_start_tokens": [step.start_token for step in profile.steps],
        "step_entropies": profile.step_entropies.tolist(),
        "breakpoint_step": found.step_index if found else None,
        "surge_nats": found.surge if found else None,
        "window_size": found.window_size if found else None,
        "z_score": found.z_score if found else None,
        "flat": found.flat if found else None,
        "entropy_source": source,
        "is_certain": profile.is_certain,
        "step_entropy_radii": None if radii is None else radii.tolist(),
    }
