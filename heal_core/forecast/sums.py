"""What a run will generate, work by work: plain sums over what is there and what is expected.

What does not belong here: reading the store (`collect`), the figures' origin (`expectations`), how it is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from heal_core.arms import NUM_SHARED_STAGES, RANDOM_BREAKPOINT
from heal_core.config import RunConfig
from heal_core.controls import num_trained_stages
from heal_core.engines.price import PriceConfig
from heal_core.forecast.estimate import Estimate, Expectations, PerSample
from heal_core.pure import AUTO
from heal_core.records import Band
from heal_core.sft.spec import num_optimizer_steps
from heal_core.spend import Spend, add_costs, cost_of
from heal_core.validity.config import NUM_SHORTCUT_KINDS

ROLLOUTS, HINTS, REPAIRS, GUIDED, PURE = "rollouts", "hints", "repairs", "guided", "pure"
VALIDITY, VALIDITY_SCORES = "validity", "validity_scores"
EQUAL_TOKENS, TRAINING, EVALUATION, PROMOTION = "equal_tokens", "training", "evaluation", "promotion"
CONTROL_HINTS, CONTROL_REPAIRS, CONTROL_PURE, CEILING = "control_hints", "control_repairs", "control_pure", "ceiling"


@dataclass(frozen=True)
class Work:
    """A kind of work of a run: how much is wanted, how much of it is stored, and what the rest will take.

    Attributes:
        phase: The flow's phase.
        unit: What is counted.
        wanted: How many; `stored` of them are there already.
        is_exact: Whether both are counted, and not expected.
        tokens: Tokens that are going to be sampled; `prompt_tokens` those that go in, for prompts or to be scored.
        seconds: Time of the engine, or of training; None where it is not known.
        cost: None where the model has no price, or it is one by the hour and the time is not known.
        disk_bytes: Room that it will take.
        basis: What the figures rest on; empty where nothing is missing.
    """

    name: str
    phase: str
    unit: str
    wanted: float
    stored: float
    is_exact: bool
    tokens: float = 0.0
    prompt_tokens: float = 0.0
    seconds: float | None = 0.0
    cost: float | None = None
    currency: str | None = None
    disk_bytes: float = 0.0
    basis: tuple[str, ...] = ()

    @property
    def missing(self) -> float:
        return max(0.0, self.wanted - self.stored)


@dataclass(frozen=True)
class Count:
    """How much of a work is wanted and stored, counted."""

    wanted: int
    stored: int


@dataclass(frozen=True)
class Demand:
    """What is known of a run before it goes on.

    Attributes:
        num_train: Training problems; `num_held_out` are held out.
        counts: What is counted already, by work: rollouts, guided, evaluation of the untrained student, and whatever
            the run has closed.
        bands: Training problems by band, expected.
        num_repairable: Wrong paths to repair, where that is counted.
        stored_hints: Rows that fit hints of these problems; then repairs, guided samples, scores, and rollouts beyond
            the first N.
        has_best_student: Whether a promoted student will answer, too.
    """

    num_train: int
    num_held_out: int
    counts: Mapping[str, Count]
    bands: Mapping[Band, float]
    num_repairable: int | None = None
    stored_hints: int = 0
    stored_repairs: int = 0
    stored_guided: int = 0
    stored_scores: int = 0
    stored_equal_tokens: int = 0
    has_best_student: bool = False
    closed: frozenset[str] = field(default_factory=frozenset)


def forecast(config: RunConfig, demand: Demand, expected: Expectations, stage_bytes: float | None) -> list[Work]:
    """Return the works of a run in their order.

    Args:
        stage_bytes: Room of all trained stages, None where the student's size is not known.
    """
    hard, extremely_hard = demand.bands[Band.HARD], demand.bands[Band.EXTREMELY_HARD]
    num_paths = (
        float(demand.num_repairable)
        if demand.num_repairable is not None
        else extremely_hard * expected.paths_per_problem.value
    ) * expected.broken_share.value
    hinted = num_paths * expected.hinted_share.value
    rollouts = _sampled(ROLLOUTS, "rollouts", "rollouts", _count(demand, ROLLOUTS), expected.rollout, expected)
    hints = _continued(
        demand, HINTS, num_paths * expected.hints_per_path.value, demand.stored_hints, "hints",
        expected.hint, expected, (expected.hints_per_path, expected.broken_share),
    )  # fmt: skip
    repairs = _continued(
        demand, REPAIRS, hinted * config.repair.num_generations, demand.stored_repairs, "repairs",
        expected.repair, expected, (expected.paths_per_problem, expected.hinted_share),
    )  # fmt: skip
    if config.repair.quota and repairs.missing:
        repairs = replace(repairs, basis=(*repairs.basis, "upper bound: repair.quota may end them sooner"))
    guided = _continued(
        demand, GUIDED, hard * config.guided.num_generations, demand.stored_guided, "samples",
        expected.guided, expected, (),
    )  # fmt: skip
    pure = _continued(
        demand, PURE, repairs.wanted * expected.scored_share.value, demand.stored_scores, "scores",
        expected.score, expected, (expected.scored_share,),
    )  # fmt: skip
    pure = replace(pure, disk_bytes=0.0)
    works = [rollouts, hints, repairs, guided, *_validity(config, demand, expected), pure]
    if config.controls.equal_tokens:
        wanted = _equal_tokens(hard + extremely_hard, expected, hints, repairs, guided)
        stored = demand.stored_equal_tokens
        works.append(_continued(demand, EQUAL_TOKENS, wanted, stored, "rollouts", expected.extra, expected, ()))
    works += _controls(config, demand, expected, {work.name: work for work in works})
    works.append(_training(config, demand, expected, stage_bytes))
    works.append(_sampled(EVALUATION, EVALUATION, "answers", _count(demand, EVALUATION), expected.answer, expected))
    if config.promotion.enabled and demand.has_best_student:
        num = demand.num_held_out * config.evaluation.num_generations
        works.append(_continued(demand, PROMOTION, num, 0, "answers", expected.answer, expected, ()))
    return [_priced(work, config) for work in works]


def _equal_tokens(num_problems: float, expected: Expectations, *spent: Work) -> float:
    """Return how many plain rollouts take the tokens of these works of so many problems."""
    sizes = {HINTS: expected.hint, REPAIRS: expected.repair, GUIDED: expected.guided}
    budget = sum(work.wanted * sizes[work.name].tokens.value for work in spent)
    # the sample that crosses a problem's budget is drawn too: half a sample more, on average
    return budget / max(1.0, expected.extra.tokens.value) + 0.5 * num_problems if budget else 0.0


def _validity(config: RunConfig, demand: Demand, expected: Expectations) -> list[Work]:
    """Return the validity test that chooses PURE's score, where it does: what is sampled, and what is scored."""
    if config.pure.score != AUTO:
        return []
    test = config.pure.validity
    prefixes = demand.bands[Band.HARD] * test.max_paths * expected.broken_share.value
    prefixes = min(prefixes, test.max_prefixes or prefixes)
    # natural continuations, and beside each chosen one what is written after its answer
    num_sampled = prefixes * (test.num_generations + test.max_per_prefix)
    num_texts = prefixes * test.max_per_prefix * (1 + NUM_SHORTCUT_KINDS)
    sampled = _continued(demand, VALIDITY, num_sampled, 0, "samples", expected.repair, expected, ())
    scored = _continued(demand, VALIDITY_SCORES, num_texts, 0, "scores", expected.score, expected, ())
    bound = "upper bound: every prefix has verified continuations, of which none are stored"
    return [
        replace(work, basis=(*work.basis, bound)) if work.missing else work
        for work in (sampled, replace(scored, disk_bytes=0.0))
    ]


def _controls(config: RunConfig, demand: Demand, expected: Expectations, made: Mapping[str, Work]) -> list[Work]:
    """Return what the controls that continue HEAL's paths sample and have scored, and the ceiling's plain samples."""
    arms = config.controls.continued
    works = []
    if RANDOM_BREAKPOINT in arms:
        works.append(_continued(demand, CONTROL_HINTS, made[HINTS].wanted, 0, "hints", expected.hint, expected, ()))
    if arms:
        num_repairs, num_scores = len(arms) * made[REPAIRS].wanted, len(arms) * made[PURE].wanted
        repairs = _continued(demand, CONTROL_REPAIRS, num_repairs, 0, "repairs", expected.repair, expected, ())
        scores = _continued(demand, CONTROL_PURE, num_scores, 0, "scores", expected.score, expected, ())
        as_heal = "as many verified as of HEAL's repairs"
        scores = replace(scores, basis=(*scores.basis, as_heal)) if scores.missing else scores
        works += [repairs, replace(scores, disk_bytes=0.0)]
    num_more = config.controls.ceiling_samples - config.rollouts.num_generations
    if num_more > 0:
        extremely_hard = demand.bands[Band.EXTREMELY_HARD]
        wanted = extremely_hard * num_more
        if config.controls.equal_tokens:  # its rollouts of these problems are among them
            wanted = max(0.0, wanted - _equal_tokens(extremely_hard, expected, made[HINTS], made[REPAIRS]))
        works.append(_continued(demand, CEILING, wanted, 0, "rollouts", expected.extra, expected, ()))
    bound = "upper bound: nothing of controls is counted as stored"
    return [replace(work, basis=(*work.basis, bound)) if work.missing else work for work in works]


def total(works: Iterable[Work]) -> Work:
    """Return the sums, but for costs, which may be in several currencies (`total_costs`)."""
    works = list(works)
    known = [work.seconds for work in works if work.seconds is not None]
    return Work(
        "total", "", "", 0, 0, all(work.is_exact for work in works),
        sum(work.tokens for work in works), sum(work.prompt_tokens for work in works),
        sum(known) if known else None, None, None, sum(work.disk_bytes for work in works),
    )  # fmt: skip


def total_costs(works: Iterable[Work]) -> dict[str, float]:
    """Return the costs by currency, of the works that have one."""
    return add_costs((work.currency, work.cost) for work in works if work.currency and work.cost is not None)


def _count(demand: Demand, name: str) -> tuple[float, float, bool]:
    count = demand.counts[name]
    return count.wanted, count.stored, True


def _continued(
    demand: Demand,
    name: str,
    wanted: float,
    stored: float,
    unit: str,
    sample: PerSample,
    expected: Expectations,
    bases: tuple[Estimate, ...],
) -> Work:
    """Return a work that follows from others: counted if the run has closed it, else expected."""
    phase = PHASE_OF[name]
    if name in demand.counts:
        count = demand.counts[name]
        return _sampled(name, phase, unit, (count.wanted, count.stored, True), sample, expected)
    work = _sampled(name, phase, unit, (wanted, min(stored, wanted), False), sample, expected)
    more = tuple(estimate.basis for estimate in bases) if work.missing else ()
    return replace(work, basis=tuple(dict.fromkeys((*work.basis, *more))))


def _sampled(
    name: str, phase: str, unit: str, count: tuple[float, float, bool], sample: PerSample, expected: Expectations
) -> Work:
    """Return a work whose samples take what is expected of their kind."""
    wanted, stored, is_exact = count
    work = Work(name, phase, unit, wanted, stored, is_exact)
    if not work.missing:
        return work
    tokens = work.missing * sample.tokens.value
    seconds = None if sample.seconds is None else work.missing * sample.seconds.value
    estimates = [sample.tokens, sample.prompt_tokens, *([sample.seconds] if sample.seconds else [])]
    return replace(
        work,
        tokens=tokens,
        prompt_tokens=work.missing * sample.prompt_tokens.value,
        seconds=seconds,
        disk_bytes=tokens * expected.bytes_per_token.value + work.missing * expected.bytes_per_trajectory.value,
        basis=tuple(dict.fromkeys(estimate.basis for estimate in estimates)),
    )


def _training(config: RunConfig, demand: Demand, expected: Expectations, stage_bytes: float | None) -> Work:
    """Return the optimizer steps of all arms: in each, those that HEAL's own examples need."""
    arms = config.controls.arms
    if TRAINING in demand.closed:
        num = num_trained_stages(arms)
        return Work(TRAINING, TRAINING, "stages", num, num, True)
    base = demand.num_train * expected.base_examples.value
    guided = demand.bands[Band.HARD] * expected.guided_examples.value
    repairs = demand.bands[Band.EXTREMELY_HARD] * expected.repair_examples.value
    sizes = (base, base + guided, base + guided + repairs)
    stages = [
        num_optimizer_steps(round(size), epochs, config.sft.batch_size)
        for size, epochs in zip(sizes, config.curriculum.epochs, strict=True)
    ]
    steps = sum(sum(stages[NUM_SHARED_STAGES.get(arm, 0) :]) for arm in arms)
    step = expected.step
    return Work(
        TRAINING,
        TRAINING,
        "optimizer steps",
        steps,
        0,
        False,
        seconds=None if step is None or step.seconds is None else steps * step.seconds.value,
        disk_bytes=stage_bytes or 0.0,
        basis=tuple(dict.fromkeys([expected.base_examples.basis, *([step.tokens.basis] if step else [])])),
    )


def _priced(work: Work, config: RunConfig) -> Work:
    price = price_of(work.name, config)
    if price is None:
        return work
    if price.hour and work.seconds is None:
        return replace(work, currency=price.currency)
    spend = Spend(round(work.prompt_tokens), 0, round(work.tokens), work.seconds or 0.0)
    return replace(work, cost=cost_of(spend, price), currency=price.currency)


def price_of(name: str, config: RunConfig) -> PriceConfig | None:
    """Return the price of the model that does a work; None without one, and for training."""
    if name == TRAINING:
        return None
    role = ROLE_OF.get(name, "teacher")
    return config.models[role].price


ROLE_OF = {
    **dict.fromkeys((PURE, VALIDITY_SCORES, CONTROL_PURE), "scorer"),
    **dict.fromkeys((EVALUATION, PROMOTION), "student"),
}
"""The model that does a work, where it is not the teacher."""

PHASE_OF = {
    ROLLOUTS: "rollouts",
    HINTS: "repairs",
    REPAIRS: "repairs",
    GUIDED: "repairs",
    VALIDITY: "selection",
    VALIDITY_SCORES: "selection",
    PURE: "selection",
    EQUAL_TOKENS: "equal_tokens",
    CONTROL_HINTS: "controls",
    CONTROL_REPAIRS: "controls",
    CONTROL_PURE: "controls",
    CEILING: "controls",
    TRAINING: "training",
    EVALUATION: "evaluation",
    PROMOTION: "promotion",
}
"""The flow's phase that does a work."""
