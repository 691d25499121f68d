"""What is expected of a run: from this workspace's runs, the same recipe first, else from its settings.

Every figure says what it rests on. What does not belong here: what is counted (`collect`), the sums (`sums`).
"""

from __future__ import annotations

from dataclasses import dataclass

from heal_core.config import RunConfig
from heal_core.forecast.estimate import Estimate, Expectations, PerSample
from heal_core.records import Kind
from heal_core.store import experience
from heal_core.store.experience import RunYields, SampleMeans
from heal_core.store.reading import Readable
from heal_core.store.workspace import Workspace

CHARS_PER_TOKEN = 4.0
ASSUMED_QUESTION_TOKENS = 150
_INSTRUCTION_TOKENS = 40
_KEPT_SHARE = 1 / 3
"""The breakpoint is in the first third of a path (definition D5), so a prefix has at most that."""
_SCORED_PER_TOKEN = 10.0
"""Tokens that the scorer reads per token of a repair: 9.6 on the lab, docs/planning.md."""
_TOKEN_BYTES = 10.8
_TEXT_BYTES = 2.3
_ROW_BYTES = 780.0
"""Bytes of a token in the parts, of its text in the index and its copy, and of a row there (docs/benchmarks.md)."""
_WITH_ANSWER = {
    "hints_per_path": Estimate(0.0, "hints.arm: answer"),
    "hinted_share": Estimate(1.0, "hints.arm: answer"),
}
_FROM_BENCHMARKS = "measured in docs/benchmarks.md"


@dataclass(frozen=True)
class Sources:
    """Where expectations may come from.

    Attributes:
        store: What is published, None without anything.
        recipes: Ids by kind, empty where the teacher's files are not on this machine.
        question_tokens: Mean length of a question.
        probed: Rollouts that were just sampled to learn from, 0 without a probe.
    """

    store: Readable | None
    workspace: Workspace
    recipes: dict[Kind, str]
    question_tokens: Estimate
    probed: int = 0


def expectations(config: RunConfig, sources: Sources, similar: tuple[RunYields, bool] | None) -> Expectations:
    """Return what is expected.

    Args:
        similar: The run to learn yields from, and whether its rollouts are of the same recipe; None without one.
    """
    sampling, hint_sampling = config.rollouts.sampling, config.hints.sampling
    question = sources.question_tokens
    rollout = _sampled(config, sources, Kind.ROLLOUT, sampling.max_tokens) or PerSample(
        _bound("rollouts.sampling.max_tokens", sampling.max_tokens), _plus(question, _INSTRUCTION_TOKENS)
    )
    prefix = rollout.tokens.value * _KEPT_SHARE
    hint = _sampled(config, sources, Kind.HINT, hint_sampling.max_tokens) or PerSample(
        _bound("hints.sampling.max_tokens", hint_sampling.max_tokens),
        _plus(question, 2 * _INSTRUCTION_TOKENS + prefix),
        _in_proportion(rollout, float(hint_sampling.max_tokens)),
    )
    repair = _sampled(config, sources, Kind.REPAIR, sampling.max_tokens) or PerSample(
        Estimate(rollout.tokens.value, f"as long as a rollout: {rollout.tokens.basis}"),
        _plus(question, 2 * _INSTRUCTION_TOKENS + hint.tokens.value + prefix),
        rollout.seconds,
    )
    guided = _sampled(config, sources, Kind.GUIDED, sampling.max_tokens) or PerSample(
        Estimate(rollout.tokens.value, f"as long as a rollout: {rollout.tokens.basis}"),
        _plus(question, 2 * _INSTRUCTION_TOKENS),
        rollout.seconds,
    )
    yields = _yields(config, similar)
    return Expectations(
        rollout=rollout,
        hint=hint,
        repair=repair,
        guided=guided,
        answer=_answer(config, sources, rollout),
        extra=_extra(config, sources, rollout, similar),
        score=_score(config, sources, repair, prefix),
        step=_step(config, sources),
        **yields,
        **_room(sources),
    )


def _sampled(config: RunConfig, sources: Sources, kind: Kind, limit: int) -> PerSample | None:
    """Return what was measured on a kind of text: of the same recipe, else of the same model; None without any."""
    if sources.store is None:
        return None
    recipe_id = sources.recipes.get(kind)
    means = experience.sample_means(sources.store, recipe_id, limit) if recipe_id else None
    if means is not None:
        is_probe = kind is Kind.ROLLOUT and 0 < means.num <= sources.probed
        return _per_sample(means, f"probe of {means.num}" if is_probe else f"measured on {means.num:,} {_PLURAL[kind]}")
    means = experience.sample_means_of_model(sources.store, config.teacher.model_name_or_path, str(kind), limit)
    return _per_sample(means, f"measured on {means.num:,} {_PLURAL[kind]} of other settings") if means else None


_PLURAL = {Kind.ROLLOUT: "rollouts", Kind.HINT: "hints", Kind.REPAIR: "repairs", Kind.GUIDED: "guided samples"}


def _per_sample(means: SampleMeans, basis: str) -> PerSample:
    if means.cut_share >= 0.01:
        basis += f", {means.cut_share:.0%} of them cut at a lower limit"
    return PerSample(
        Estimate(means.tokens, basis),
        Estimate(means.prompt_tokens, basis),
        Estimate(means.seconds, basis) if means.seconds else None,
    )


def _answer(config: RunConfig, sources: Sources, rollout: PerSample) -> PerSample:
    limit = config.rollouts.sampling.max_tokens
    means = sources.store and experience.answer_means(sources.store, config.student.model_name_or_path, limit)
    if means:
        return _per_sample(means, f"measured on {means.num:,} answers of students")
    return PerSample(_bound("rollouts.sampling.max_tokens", limit), rollout.prompt_tokens)


def _extra(
    config: RunConfig, sources: Sources, rollout: PerSample, similar: tuple[RunYields, bool] | None
) -> PerSample:
    if sources.store is None or similar is None:
        return rollout
    run_id = similar[0].run_id
    means = experience.extra_means(sources.store, run_id, config.rollouts.sampling.max_tokens)
    return _per_sample(means, f"measured on {means.num:,} rollouts of B2 in run {run_id}") if means else rollout


def _score(config: RunConfig, sources: Sources, repair: PerSample, prefix: float) -> PerSample:
    """Return what a scored repair takes: nothing is sampled, and what is read are prompt tokens."""
    found = sources.store and experience.score_means(sources.store, config.models["scorer"].model_name_or_path)
    if found:
        num, tokens, seconds = found
        basis = f"measured on {num:,} scores"
        return PerSample(
            Estimate(0.0, basis), Estimate(tokens, basis), Estimate(seconds, basis) if seconds is not None else None
        )
    tokens = _SCORED_PER_TOKEN * (prefix + repair.tokens.value)
    basis = f"assumed {_SCORED_PER_TOKEN:.0f} tokens read per token of a repair"
    return PerSample(Estimate(0.0, basis), Estimate(tokens, basis))


def _step(config: RunConfig, sources: Sources) -> PerSample | None:
    found = sources.store and experience.training_means(sources.store, config.student.model_name_or_path)
    if not found:
        return None
    num, tokens, seconds = found
    basis = f"measured on {num:,} optimizer steps"
    return PerSample(Estimate(tokens, basis), Estimate(0.0, basis), Estimate(seconds, basis))


def _yields(config: RunConfig, similar: tuple[RunYields, bool] | None) -> dict[str, Estimate]:
    """Return the shares that decide how many there are of each kind; bounds where no run tells."""
    most_paths = min(config.repair.max_paths, config.rollouts.num_generations)
    cap = config.curriculum.max_per_problem
    found = {
        "paths_per_problem": _bound("repair.max_paths", most_paths),
        "broken_share": Estimate(1.0, "upper bound: every path has a breakpoint"),
        "hints_per_path": _bound("hints.max_tries", config.hints.max_tries),
        "hinted_share": Estimate(1.0, "upper bound: every path gets a hint"),
        "scored_share": Estimate(1.0, "upper bound: every repair is scored"),
        "base_examples": _bound("curriculum.max_per_problem", cap),
        "guided_examples": _bound("curriculum.max_per_problem", cap),
        "repair_examples": _bound("curriculum.max_per_problem", cap),
    }
    if config.hints.arm == "answer":
        found |= _WITH_ANSWER
    if similar is None:
        return found
    run, is_same = similar
    basis = f"as in run {run.run_id}" + ("" if is_same else ", of other settings")

    def learn(name: str, num: float | None, of: float | None) -> None:
        if num is not None and of:
            found[name] = Estimate(num / of, basis)

    if run.num_paths is not None:
        learn("broken_share", run.num_broken, run.num_paths)
        learn("hints_per_path", run.num_hints, run.num_broken)
        learn("hinted_share", run.num_hinted, run.num_broken)
    if config.hints.arm == "answer":
        found |= _WITH_ANSWER
    learn("scored_share", run.num_scored, run.num_repairs)
    learn("base_examples", run.num_base_examples, run.num_problems)
    if run.num_base_examples is not None:
        learn("guided_examples", run.num_guided_examples, run.num_hard)
        learn("repair_examples", run.num_repair_examples, run.num_extremely_hard)
    return found


def _room(sources: Sources) -> dict[str, Estimate]:
    room = sources.store and experience.measure_room(sources.store, sources.workspace)
    if not room:
        return {
            "bytes_per_token": Estimate(_TOKEN_BYTES + _TEXT_BYTES, _FROM_BENCHMARKS),
            "bytes_per_trajectory": Estimate(_ROW_BYTES, _FROM_BENCHMARKS),
        }
    basis = f"measured on {room.num_trajectories:,} texts"
    if room.index_bytes_per_trajectory is None:
        return {
            "bytes_per_token": Estimate(room.part_bytes_per_token + _TEXT_BYTES, basis),
            "bytes_per_trajectory": Estimate(_ROW_BYTES, _FROM_BENCHMARKS),
        }
    return {
        "bytes_per_token": Estimate(room.part_bytes_per_token, basis),
        "bytes_per_trajectory": Estimate(room.index_bytes_per_trajectory, basis),
    }


def _bound(setting: str, value: float) -> Estimate:
    return Estimate(value, f"upper bound: {setting}")


def _plus(question: Estimate, tokens: float) -> Estimate:
    return Estimate(question.value + tokens, question.basis)


def _in_proportion(rollout: PerSample, tokens: float) -> Estimate | None:
    """Return the time of a text by that of a rollout and both lengths."""
    if rollout.seconds is None:
        return None
    return Estimate(rollout.seconds.value * tokens / max(1.0, rollout.tokens.value), rollout.seconds.basis)
