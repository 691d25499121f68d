"""All charts of a report, by name: what each is called, what it says, and how it is drawn."""

from __future__ import annotations

from heal_core.errors import InputError
from heal_core.report.charts import cost, entropy, evaluation, filters, funnel, training
from heal_core.report.charts.drawing import Chart

CHARTS: dict[str, Chart] = {
    "funnel": Chart(
        "What became of everything",
        "Each bar is one phase, cut by what became of it. The table below has the counts and every reason.",
        funnel.draw_funnel,
        funnel.funnel_rows,
    ),
    "bands": Chart(
        "Problems by band",
        "A problem's band comes from the share of the teacher's rollouts that solve it.",
        funnel.draw_bands,
        funnel.band_rows,
    ),
    "pass-rates": Chart(
        "Pass rates before and after repair",
        "Training problems by the share of correct texts: before, of the teacher's rollouts; after, of rollouts and "
        "repairs together, which were written with a hint or the answer in sight. 0 and 1 have bars of their own.",
        funnel.draw_pass_rates,
        funnel.pass_rate_rows,
    ),
    "entropy": Chart(
        "Entropy around the breakpoint",
        "Mean token entropy per step, steps counted from the breakpoint (0), over all rollouts that have one, with "
        "95 % intervals over problems. The rise at 0 is there by construction; what tells is whether wrong rollouts "
        "rise more than right ones, and stay up.",
        entropy.draw_entropies,
        entropy.entropy_rows,
    ),
    "breaks": Chart(
        "Where wrong rollouts break",
        "Where the breakpoint lies, beside a step drawn at random from the same window. Only the first part of a "
        "rollout is searched.",
        entropy.draw_breaks,
        entropy.break_rows,
    ),
    "gates": Chart(
        "What each gate refuses",
        "Each gate on its own, of repairs, and of the teacher's verified rollouts, which saw neither hint nor "
        "answer: there, what is refused is a false positive.",
        filters.draw_gates,
        filters.gate_rows,
    ),
    "pure": Chart(
        "PURE's scores",
        "Verified repairs that passed the gates. The dashed line is the pooled cut; a problem with enough repairs has "
        "a cut of its own, so that some are dropped on the left of the line and some kept on its right.",
        filters.draw_pure,
        filters.pure_rows,
    ),
    "validity": Chart(
        "Does the score find shortcuts?",
        "Probability that a shortcut that was built ranks above a natural text, with 95 % intervals; 0.5 is chance. A "
        "score earns its place only if it beats the baselines (heal validate-pure).",
        filters.draw_validity,
        filters.validity_rows,
    ),
    "stages": Chart(
        "What each stage trains on",
        "HEAL's training examples by stage and by what they are.",
        training.draw_stages,
        training.stage_rows,
    ),
    "loss": Chart(
        "Loss over the three stages",
        "Training loss of HEAL's student per optimizer step; diamonds are the loss on the teacher's solutions of "
        "held-out problems, before and after each stage.",
        training.draw_losses,
        training.all_loss_rows,
    ),
    "scores": Chart(
        "Held-out problems",
        "avg@k of each arm with its 95 % interval (1.96 standard errors over problems), in all and per band. "
        "Where all answers of an arm are right, or none is, the interval has no width: that is no certainty. Another "
        "training seed would give other students, which no interval here counts.",
        evaluation.draw_scores,
        evaluation.score_rows,
    ),
    "contrasts": Chart(
        "Differences of arms",
        "Over the same problems, with 95 % intervals from a bootstrap over problems, which are not adjusted; shown "
        "means p < 0.05 after Holm's adjustment, and of the primary one, HEAL − B2 on the extremely hard, its own p. "
        "The number of problems is in brackets.",
        evaluation.draw_contrasts,
        evaluation.contrast_rows,
    ),
    "cost": Chart(
        "Tokens by phase",
        "Tokens of what the run uses, whichever run made it.",
        cost.draw_cost,
        cost.cost_rows,
    ),
}  # fmt: skip


def chart_named(name: str) -> Chart:
    """Return a chart.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in CHARTS:
        raise InputError(f"there is no chart {name!r}; expected one of {', '.join(CHARTS)}.")
    return CHARTS[name]
