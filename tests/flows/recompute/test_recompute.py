"""Each line of the table "What a change recomputes" (docs/store.md), proved by counting.

A case copies a workspace in which one run has finished, changes one thing and runs again.
What has to be made is computed from what the run wants, less what the workspace held, in
terms of meanings (`ledger`), and compared with what engine, verifier and trainer were asked,
with what the run counted itself, and with what the table says.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from heal_core import prompts, recipes, reference, run_key
from heal_core.engines import identity
from heal_core.errors import StoreError
from heal_core.keys import STAGE_VERSIONS
from heal_core.verify.grade import verifier_identity
from tests.flows.recompute.ledger import KINDS
from tests.flows.recompute.world import HELD_OUT_LEVELS, SETTINGS, TRAIN_LEVELS, N, write_problems

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
SAMPLES = ("rollouts", "hints", "repairs", "guided")
NUM_PROBLEMS = len(TRAIN_LEVELS) + len(HELD_OUT_LEVELS)
BOTH_CONTROLS = {"controls.rejection_sampling": True, "controls.equal_tokens": True}

Arrange = Callable[[Any, pytest.MonkeyPatch, Path], None]


@dataclass(frozen=True)
class Line:
    """A line of the table: what is made for its own sake, whether more follows from that, what is used again.

    `replaces` says that nothing of what is made anew was there before.
    """

    made: frozenset[str]
    follows: bool
    used: frozenset[str]
    replaces: bool
    same_run: bool


@dataclass(frozen=True)
class Case:
    """One change that a line of the table is about.

    Attributes:
        line: First column of the line.
        arrange: What is done besides settings: files, versions, prompts.
        base: What the run before had besides the world's settings.
        exactly: How many the run counts under a name, as a number or as a query on the run before.
    """

    line: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    arrange: Arrange = lambda lab, patch, folder: None
    base: Mapping[str, Any] = field(default_factory=dict)
    exactly: Mapping[str, int | str] = field(default_factory=dict)


def kinds_of(cell: str) -> frozenset[str]:
    """Return the kinds that a cell names outside parentheses."""
    words = set(re.findall(r"[a-z]+", re.sub(r"\(.*?\)", "", cell)))
    named = {kind for kind in KINDS if kind in words}
    return frozenset(named.union(SAMPLES if "samples" in words else (), KINDS if "all" in words else ()))


def read_table() -> dict[str, Line]:
    section = (ROOT / "docs/store.md").read_text().split("## What a change recomputes\n")[1].split("\n## ")[0]
    lines = {}
    for change, made, used in re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)[1:]:
        follows = "what follows" in made
        kinds = kinds_of(made.replace("what follows", ""))
        assert change not in lines, f"two lines on {change}"
        assert kinds or follows or made.startswith("nothing"), f"{change}: what is made anew?"
        replaced = {"stages", "answers"} if follows else set()
        lines[change] = Line(kinds, follows, kinds_of(used) - replaced, used == "nothing", "the same run" in made)
    return lines


TABLE = read_table()


def another_model(name: str) -> Arrange:
    """Write a model with other weights as LAB/new."""

    def arrange(lab: Any, _: pytest.MonkeyPatch, __: Path) -> None:
        shutil.rmtree(lab.folder / "new", ignore_errors=True)
        lab.write_model(lab.folder / "new", f"another {name}")

    return arrange


def moved(lab: Any, _: pytest.MonkeyPatch, __: Path) -> None:
    for name in ("teacher", "student"):
        shutil.copytree(lab.folder / name, lab.folder / "moved" / name)
    for name in ("train", "held_out"):
        shutil.copy(lab.folder / f"{name}.jsonl", lab.folder / "moved" / f"{name}.jsonl")


def on_the_hub(lab: Any, patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Put a model with two revisions into the hub's cache: the first is the teacher, the second is not."""
    model = folder / "hub" / "models--heal--teacher"
    for revision, weights in (("v1", "teacher"), ("v2", "another teacher")):
        lab.write_model(model / "snapshots" / f"commit-{revision}", weights)
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs" / revision).write_text(f"commit-{revision}")
    patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def problems(train: tuple[str, ...], held_out: tuple[str, ...] = HELD_OUT_LEVELS) -> Arrange:
    def arrange(lab: Any, _: pytest.MonkeyPatch, __: Path) -> None:
        write_problems(lab.folder / "new_train.jsonl", train)
        write_problems(lab.folder / "new_held_out.jsonl", held_out, first=50)

    return arrange


def to_other_side(lab: Any, _: pytest.MonkeyPatch, __: Path) -> None:
    """Move the first problem to the held-out ones."""
    first, rest = (lab.folder / "train.jsonl").read_text().split("\n", 1)
    (lab.folder / "new_train.jsonl").write_text(rest)
    (lab.folder / "new_held_out.jsonl").write_text(first + "\n" + (lab.folder / "held_out.jsonl").read_text())


def patched(*places: tuple[Any, str, Any]) -> Arrange:
    def arrange(_: Any, patch: pytest.MonkeyPatch, __: Path) -> None:
        for owner, name, value in places:
            patch.setattr(owner, name, value)

    return arrange


def reworded(prompt: Callable[..., str], wording: Callable[..., str]) -> Arrange:
    """Give a prompt other words, whoever has imported it."""
    return patched((prompt, "__code__", wording.__code__))


def stage_version(stage: str) -> Arrange:
    def arrange(_: Any, patch: pytest.MonkeyPatch, __: Path) -> None:
        patch.setitem(STAGE_VERSIONS, stage, STAGE_VERSIONS[stage] + 1)

    return arrange


def another_math_verify(lab: Any, patch: pytest.MonkeyPatch, folder: Path, for_this_process: bool = True) -> None:
    """Let the verifiers find math-verify under another version first, and this process too."""
    metadata = folder / "path" / "math_verify-99.0.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: math-verify\nVersion: 99.0\n")
    patch.setenv("PYTHONPATH", str(folder / "path"))
    lab.end_verifiers()
    if for_this_process:
        patch.syspath_prepend(folder / "path")
        verifier_identity.cache_clear()


NEW_PROBLEMS = {"problems.path": "LAB/new_train.jsonl", "problems.evaluation_path": "LAB/new_held_out.jsonl"}
BOX_IT = replace(prompts.BOXED, instruction="Box it.")
IN_SHORT = replace(prompts.BOXED, cue="\n\nIn short: \\boxed{")
PLACES = {
    "teacher.model_name_or_path": "LAB/moved/teacher",
    "student.model_name_or_path": "LAB/moved/student",
    "problems.path": "LAB/moved/train.jsonl",
    "problems.evaluation_path": "LAB/moved/held_out.jsonl",
    "teacher.device": "cpu",
    "student.device": "cuda:1",
}
PACE = {
    "chunk_problems": 3,
    "teacher.batch_size": 3,
    "teacher.num_threads": 3,
    "teacher.score_tokens": 4096,
    "teacher.stall_seconds": 3.0,
    "teacher.call_seconds": 3.0,
    "student.batch_size": 3,
    "student.num_threads": 3,
    "student.score_tokens": 4096,
    "student.stall_seconds": 3.0,
    "student.call_seconds": 3.0,
    "on_busy": "wait",
    "verify.num_workers": 3,
    "verify.max_tasks_per_worker": 3,
    "sft.per_device_train_batch_size": 1,
    "sft.device": "cuda",
    "sft.num_threads": 3,
    "sft.save_every_steps": 3,
    "sft.save_every_seconds": 3.0,
    "sft.save_total_limit": 3,
    "sft.micro_batch_tokens": 64,
    "sft.num_held_out": 0,
    "sft.report_to": ["tensorboard"],
    "sft.launcher": ["accelerate", "launch"],
    "sft.stall_seconds": 3.0,
    "failures.max_retries": 1,
    "failures.retry_delay_seconds": 3.0,
    "failures.max_quarantined_share": 0.3,
    "notify.webhook_env": "NOT_SET_ANYWHERE",
    "notify.command": ["true"],
    "notify.events": ["stopped"],
    "notify.timeout_seconds": 3.0,
}

OF_LM_EVAL = ("batch_size", "python", "call_seconds")

K = SETTINGS["evaluation"]["num_generations"]
NUM_ANSWERS = K * len(HELD_OUT_LEVELS)
REPAIRS_PER_PATH = SETTINGS["repair"]["num_generations"]
UNHINTED = "SELECT count(*) FROM decisions WHERE run_id = $run AND reason = 'no_acceptable_hint'"
HINTED = "SELECT count(*) FROM decisions WHERE run_id = $run AND phase = 'path' AND decision = 'kept'"
PASSED = (
    "SELECT count(*) FROM decisions JOIN trajectories ON trajectory_id = subject_id "
    "WHERE run_id = $run AND phase = 'gate' AND decision = 'kept' AND kind = 'repair'"
)
REFUSED_BY_G2 = PASSED.replace("decision = 'kept'", "reason = 'G2'")
CUT = "SELECT count(*) FROM run_rows WHERE run_id = $run AND phase = '{}' AND cut"
DRAWN_BY_B2 = (
    "(SELECT count(*) FROM run_trajectories WHERE run_id = $run AND phase = 'equal_tokens' AND sample_index < 30)"
)
GRADED_AS_MATH = (
    "SELECT count(*) FROM run_trajectories JOIN problems USING (problem_id) "
    "WHERE run_id = $run AND problem_type = 'math' AND label IS NOT NULL"
)
OUT_OF_TIME = "SELECT count(*) FROM run_trajectories WHERE run_id = $run AND reason = 'timeout'"
EVERYTHING = {"rollouts": N * NUM_PROBLEMS, "profiles": N * NUM_PROBLEMS, "stages": 3, "evaluation": 2 * NUM_ANSWERS}
FROM_TEACHER = EVERYTHING | {"evaluation": NUM_ANSWERS}

PLACE = "where models and problems are, with the same files; `device`"
TEACHER, STUDENT = "the teacher's files or `dtype`", "the student's files or `dtype`"
SAMPLING = "`rollouts.sampling.temperature`, `top_p`, `early_stop`"
HINT_SAMPLING = "`hints.sampling.temperature`, `top_p`"
MORE_PATHS = "`hints.max_tries`, `repair.max_paths` up"
FEWER = "`hints.max_tries`, `repair.*`, `guided.*` down"
TERMS = "`pure.epsilon`, `pure.min_prompt_uncertainty`"
DROPS = "`pure.score`, `min_candidates`, `pooled_percentile`"
CAP = "`curriculum.max_per_problem` (m), `max_jaccard`, `ngram_tokens`"
LIMITS = "`verify.timeout_seconds` down; `verify.max_memory_gib`"
UP_AND_DOWN = "`rollouts.num_generations` up and down again"

CASES = {
    "pace": Case('settings marked "pace" in [configuration.md](configuration.md)', PACE),
    "moved": Case(PLACE, PLACES, moved),
    "from the hub": Case(PLACE, {"teacher.model_name_or_path": "heal/teacher", "teacher.revision": "v1"}, on_the_hub),
    "HEAL": Case(
        "another version of HEAL, with the same stage versions", {}, patched((run_key, "__version__", "99.0"))
    ),
    "more problems": Case(
        "more problems", NEW_PROBLEMS, problems((*TRAIN_LEVELS, "easy", "never")), exactly={"rollouts": 2 * N}
    ),
    "fewer problems": Case("fewer problems", {"problems.limit": len(TRAIN_LEVELS) - 1}),
    "other side": Case("a problem changes sides (`problems.held_out_fraction`)", NEW_PROBLEMS, to_other_side),
    "N up": Case(
        "`rollouts.num_generations` up",
        {"rollouts.num_generations": 30},
        exactly={"rollouts": (30 - N) * NUM_PROBLEMS, "profiles": (30 - N) * NUM_PROBLEMS},
    ),
    "N up with B2": Case(
        "`rollouts.num_generations` up",
        {"rollouts.num_generations": 30},
        base=BOTH_CONTROLS,
        exactly={
            "rollouts": f"SELECT {(30 - N) * NUM_PROBLEMS} - {DRAWN_BY_B2}",  # B2 went on from N with the same recipe
            "profiles": (30 - N) * NUM_PROBLEMS,
        },
    ),
    "N down": Case("`rollouts.num_generations` down", {"rollouts.num_generations": 8}),
    "max_tokens up": Case(
        "`rollouts.sampling.max_tokens` up",
        {"rollouts.sampling.max_tokens": 120},
        exactly={"rollouts": CUT.format("rollouts"), "profiles": CUT.format("rollouts")},
    ),
    "max_tokens down": Case("`rollouts.sampling.max_tokens` down", {"rollouts.sampling.max_tokens": 50}),
    "temperature": Case(SAMPLING, {"rollouts.sampling.temperature": 0.9}, exactly=EVERYTHING),
    "top_p": Case(SAMPLING, {"rollouts.sampling.top_p": 0.9}, exactly=EVERYTHING),
    "early stop": Case(SAMPLING, {"rollouts.sampling.early_stop": {"ngram": 8}}, exactly=EVERYTHING),
    "seed": Case("`seed`", {"seed": 1}, exactly=EVERYTHING),
    "instruction": Case(
        "the instruction in the prompts",
        {},
        patched(*((module, "BOXED", BOX_IT) for module in (prompts, reference))),
        exactly=EVERYTHING,
    ),
    "versions": Case(
        "a version of torch or transformers",
        {},
        patched((identity, "version", lambda name: f"another {name}")),
        exactly=EVERYTHING,
    ),
    "teacher's files": Case(
        TEACHER, {"teacher.model_name_or_path": "LAB/new"}, another_model("teacher"), exactly=FROM_TEACHER
    ),
    "teacher's revision": Case(
        TEACHER,
        {"teacher.model_name_or_path": "heal/teacher", "teacher.revision": "v2"},
        on_the_hub,
        exactly=FROM_TEACHER,
    ),
    "teacher's dtype": Case(TEACHER, {"teacher.dtype": "bfloat16"}, exactly=FROM_TEACHER),
    "student's files": Case(
        STUDENT,
        {"student.model_name_or_path": "LAB/new"},
        another_model("student"),
        exactly={"stages": 3, "evaluation": 2 * NUM_ANSWERS},
    ),
    "start from the promoted student": Case(
        "`student_start` to `latest`",
        {"student_start": "latest"},
        base={"promotion.margin_points": -100.0},
        exactly={"stages": 3, "evaluation": NUM_ANSWERS},
    ),
    "margin of a promotion": Case("`promotion.*`", {"promotion.margin_points": 5.0}),
    "no promotion": Case("`promotion.*`", {"promotion.enabled": False}),
    "student's dtype": Case(
        STUDENT,
        {"student.dtype": "bfloat16"},
        # the scripted trainer learns the same in any precision: the best student would answer as the new one does
        base={"promotion.enabled": False},
        exactly={"stages": 3, "evaluation": 2 * NUM_ANSWERS},
    ),
    "prompt of hints": Case(
        "the prompt of hints",
        {},
        reworded(
            prompts.hint_prompt,
            lambda question, prefix, failed, answer, wording: f"{question}\n{prefix}\nWrong: {failed}\nIt is {answer}",
        ),
    ),
    "prompt of repairs": Case(
        "the prompt of repairs",
        {},
        reworded(prompts.hinted_prompt, lambda question, hint, wording: f"{question}\n\n({hint})"),
    ),
    "prompt of guided samples": Case(
        "the prompt of guided samples",
        {},
        reworded(prompts.guided_prompt, lambda question, answer, wording: f"{question}\n\n({answer})"),
    ),
    "temperature of hints": Case(HINT_SAMPLING, {"hints.sampling.temperature": 0.9}),
    "top_p of hints": Case(HINT_SAMPLING, {"hints.sampling.top_p": 0.9}),
    "max_tokens of hints up": Case(
        "`hints.sampling.max_tokens` up", {"hints.sampling.max_tokens": 40}, exactly={"hints": CUT.format("hints")}
    ),
    "max_tokens of hints down": Case("`hints.sampling.max_tokens` down", {"hints.sampling.max_tokens": 6}),
    "tries up": Case(
        MORE_PATHS,
        {"hints.max_tries": 3},  # the third try states no answer
        exactly={"hints": UNHINTED, "repairs": f"SELECT {REPAIRS_PER_PATH} * ({UNHINTED})"},
    ),
    "paths up": Case(MORE_PATHS, {"repair.max_paths": 6}),
    "repairs up": Case(
        "`repair.num_generations` up",
        {"repair.num_generations": REPAIRS_PER_PATH + 3},
        exactly={"repairs": f"SELECT 3 * ({HINTED})"},
    ),
    "repairs up with B2": Case(
        "`repair.num_generations` up",
        {"repair.num_generations": REPAIRS_PER_PATH + 3},
        base=BOTH_CONTROLS,
        exactly={"repairs": f"SELECT 3 * ({HINTED})"},
    ),
    "quota": Case("`repair.quota` set", {"repair.quota": {"verified": 4, "wave": 2}}),
    "guided up": Case(
        "`guided.num_generations` up",
        {"guided.num_generations": 4},
        exactly={"guided": 2 * TRAIN_LEVELS.count("hard")},
    ),
    "tries down": Case(FEWER, {"hints.max_tries": 1}),
    "paths down": Case(FEWER, {"repair.max_paths": 2}),
    "repairs down": Case(FEWER, {"repair.num_generations": 1}),
    "guided down": Case(FEWER, {"guided.num_generations": 0}),
    "breakpoints": Case(
        "`breakpoints.window_fraction`", {"breakpoints.window_fraction": 0.8}, exactly={"profiles": N * NUM_PROBLEMS}
    ),
    "steps": Case("`steps.*`", {"steps.min_step_tokens": 5}, exactly={"profiles": N * NUM_PROBLEMS}),
    "hard_below up": Case(
        "`bands.hard_below` up",
        {"bands.hard_below": 0.95},
        exactly={"guided": 2 * (TRAIN_LEVELS.count("easy") + TRAIN_LEVELS.count("slow"))},
    ),
    "hard_below down": Case("`bands.hard_below` down", {"bands.hard_below": 0.2}),
    "gates": Case("`gates.*`", {"gates.enabled": ["G3", "G4", "G5", "G10"]}, exactly={"scores": REFUSED_BY_G2}),
    "cue": Case(
        "the cue of PURE",
        {},
        patched(*((module, "BOXED", IN_SHORT) for module in (prompts, reference, recipes))),
        exactly={"scores": PASSED},
    ),
    "epsilon": Case(TERMS, {"pure.epsilon": 0.5}, exactly={"scores": PASSED}),
    "min_prompt_uncertainty": Case(TERMS, {"pure.min_prompt_uncertainty": 1.0}, exactly={"scores": PASSED}),
    "scorer": Case("`scorer`", {"scorer.model_name_or_path": "LAB/scorer"}, exactly={"scores": PASSED}),
    "PURE score": Case(DROPS, {"pure.score": "reliance"}),
    "percentile": Case(DROPS, {"pure.min_candidates": 9, "pure.pooled_percentile": 10}),
    "lambda": Case("`pure.drop_fraction` (lambda)", {"pure.drop_fraction": 0.9}),
    "m": Case(CAP, {"curriculum.max_per_problem": 3}),
    "likeness": Case(CAP, {"curriculum.max_jaccard": 0.1, "curriculum.ngram_tokens": 2}),
    "epochs": Case(
        "`curriculum.epochs`",
        {"curriculum.epochs": [1, 2, 1]},
        exactly={"stages": 2, "evaluation": NUM_ANSWERS},  # stage I is trained as before
    ),
    "learning rate": Case(
        "`sft.*` but pace", {"sft.learning_rate": 1e-4}, exactly={"stages": 3, "evaluation": NUM_ANSWERS}
    ),
    "batch size": Case("`sft.*` but pace", {"sft.batch_size": 4}, exactly={"stages": 3, "evaluation": NUM_ANSWERS}),
    "B1 on": Case(
        "`controls.rejection_sampling` on",
        {"controls.rejection_sampling": True},
        exactly={"stages": 2, "evaluation": NUM_ANSWERS},  # its stage I is HEAL's
    ),
    "B2 on": Case(
        "`controls.equal_tokens` on",
        {"controls.equal_tokens": True},
        exactly={"stages": 3, "evaluation": NUM_ANSWERS, "profiles": 0},
    ),
    "B4 on": Case(
        "`controls.unhinted`, `controls.mismatched_hint` or `controls.answer_told` on",
        {"controls.unhinted": True},
        exactly={"stages": 1, "evaluation": NUM_ANSWERS},  # its first stages are HEAL's
    ),
    "B5 on": Case(
        "`controls.random_breakpoint` on",
        {"controls.random_breakpoint": True},
        exactly={"stages": 1, "evaluation": NUM_ANSWERS},
    ),
    "B3 on": Case(
        "`controls.without_repairs`, `controls.random_drop` or `controls.shuffled` on",
        {"controls.without_repairs": True},
        exactly={"stages": 1, "evaluation": NUM_ANSWERS},
    ),
    "ceiling up": Case(
        "`controls.ceiling_samples` raised",
        {"controls.ceiling_samples": N + 4},
        exactly={"ceiling": 4 * 3},  # three training problems are extremely hard
    ),
    "controls off": Case("`controls.*` off", dict.fromkeys(BOTH_CONTROLS, False), base=BOTH_CONTROLS),
    "answers up": Case(
        "`evaluation.num_generations` up",
        {"evaluation.num_generations": K + 3},
        exactly={"evaluation": 2 * 3 * len(HELD_OUT_LEVELS)},
    ),
    "answers down": Case("`evaluation.num_generations` down", {"evaluation.num_generations": K - 1}),
    "math-verify": Case(
        "another version of math-verify", {}, another_math_verify, exactly={"verdicts": GRADED_AS_MATH}
    ),
    "more time": Case(
        "`verify.timeout_seconds` up", {"verify.timeout_seconds": 2.5}, exactly={"verdicts": OUT_OF_TIME}
    ),
    "limits": Case(LIMITS, {"verify.timeout_seconds": 1.0, "verify.max_memory_gib": 5.0}),
    "stage version": Case(
        "the number of `score` in `STAGE_VERSIONS`, and so on", {}, stage_version("score"), exactly={"scores": PASSED}
    ),
}

LATER_CASES = {
    "from the hub", "N up with B2", "top_p", "teacher's revision", "student's dtype", "margin of a promotion",
    "top_p of hints", "paths up", "repairs up with B2", "tries down", "paths down", "guided down",
    "min_prompt_uncertainty", "percentile", "likeness",
}  # fmt: skip
"""Those of the long tier: of each line of the table, the short one has another case."""


@pytest.fixture(scope="module")
def bases(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mapping[str, Any]], Any]:
    """Return a function that gives the finished run from which cases with such settings begin."""
    runs: dict[str, Any] = {}

    def base(changes: Mapping[str, Any]) -> Any:
        key = repr(changes)
        if key not in runs:
            runs[key] = lab.run(tmp_path_factory.mktemp("base") / "workspace", changes)
        return runs[key]

    return base


@pytest.fixture(autouse=True)
def _same_verifiers(lab: Any) -> Iterator[None]:
    """End the verifiers that a case started under another version."""
    before = verifier_identity("math")
    yield
    if verifier_identity("math") != before:
        verifier_identity.cache_clear()
        lab.end_verifiers()


def counts(num_by_kind: Mapping[str, int]) -> dict[str, int]:
    return {kind: num_by_kind[kind] for kind in KINDS if num_by_kind.get(kind)}


def texts_of(run: Any) -> list[tuple[Any, ...]]:
    """Return the trajectories that a run rests on, with the verdicts that count in it."""
    columns = "phase, arm, trajectory_id, cut, label, reason"
    return list(run.rows(f"SELECT {columns} FROM run_trajectories WHERE run_id = $run ORDER BY ALL"))


def decisions_of(run: Any) -> list[tuple[Any, ...]]:
    """Return what a run decided, to the order of HEAL's examples."""
    of_heal = "run_id = $run AND arm = 'heal' ORDER BY ALL"
    return [
        *run.rows("SELECT phase, subject_id, decision, reason, value FROM decisions WHERE run_id = $run ORDER BY ALL"),
        *run.rows(f"SELECT stage, position, trajectory_id FROM stage_examples WHERE {of_heal}"),
    ]


def verdicts_of(run: Any) -> dict[str, str]:
    return dict(run.rows("SELECT row_id, verdict_id FROM run_rows WHERE run_id = $run AND verdict_id IS NOT NULL"))


def check_made(line: Line, run: Any) -> None:
    """Check what was made against a line of the table."""
    made = set(counts(run.made))
    with_texts = {"verdicts"} if made & {*SAMPLES, "answers"} else set()
    with_texts |= {"profiles"} if "rollouts" in made else set()
    assert line.made <= made
    assert line.follows or made <= line.made | with_texts
    assert "stages" in made or line.made or not line.follows, "the case shows nothing that follows"


def check_used(line: Line, run: Any, base: Any) -> None:
    """Check that of the kinds which a line says are used again, no row has given way to another."""
    before, after = base.ids(), run.ids()
    for kind in line.used - {"verdicts"}:
        assert before[kind] <= after[kind] or after[kind] <= before[kind], f"{kind} were replaced"
    if "verdicts" in line.used:
        old, new = verdicts_of(base), verdicts_of(run)
        assert {row_id: old[row_id] for row_id in old.keys() & new} == {
            row_id: new[row_id] for row_id in old.keys() & new
        }
    if line.replaces:
        assert not [kind for kind in line.made if before[kind] & after[kind]]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name in LATER_CASES else name for name in CASES]
)
def test_a_change_makes_what_is_missing_and_nothing_else(
    name: str,
    lab: Any,
    bases: Callable[[Mapping[str, Any]], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, line = CASES[name], TABLE[CASES[name].line]
    base = bases(case.base)
    base_texts, base_decisions = texts_of(base), decisions_of(base)
    workspace = lab.copy(base.workspace, tmp_path / "workspace")
    case.arrange(lab, monkeypatch, tmp_path)
    run = lab.run(workspace, {**case.base, **case.changes})

    assert counts(run.made) == counts(run.missing)
    assert counts(run.calls) == {kind: num for kind, num in counts(run.missing).items() if kind != "profiles"}
    for count, num in case.exactly.items():
        assert run.counted[count] == (num if isinstance(num, int) else base.rows(num)[0][0]), count
    check_made(line, run)
    check_used(line, run, base)
    assert (run.run_id == base.run_id) is line.same_run
    if not line.made and not line.follows:
        assert decisions_of(run) == base_decisions
    earlier = replace(base, workspace=workspace)
    assert (texts_of(earlier), decisions_of(earlier)) == (base_texts, base_decisions)


def test_n_up_and_down_again_is_the_first_run(
    lab: Any, bases: Callable[[Mapping[str, Any]], Any], tmp_path: Path
) -> None:
    base = bases({})
    workspace = lab.copy(base.workspace, tmp_path / "workspace")
    more = lab.run(workspace, {"rollouts.num_generations": 30})
    again = lab.run(workspace)
    assert base.ids()["rollouts"] < more.ids()["rollouts"]
    assert (again.run_id, counts(again.made), counts(again.calls)) == (base.run_id, {}, {})
    assert (texts_of(again), decisions_of(again)) == (texts_of(base), decisions_of(base))
    without_time = base.summary.keys() - {"generated", "wall_seconds", "state", "title"}
    assert {key: again.summary[key] for key in without_time} == {key: base.summary[key] for key in without_time}


def test_a_higher_limit_keeps_what_ended_and_what_hangs_on_it(
    lab: Any, bases: Callable[[Mapping[str, Any]], Any], tmp_path: Path
) -> None:
    base = bases({})
    run = lab.run(lab.copy(base.workspace, tmp_path / "workspace"), {"rollouts.sampling.max_tokens": 120})
    used = {row_id for (row_id,) in run.rows("SELECT trajectory_id FROM run_trajectories WHERE run_id = $run")}
    of_base = base.rows(
        # hints have a limit of their own; trained students are others now
        "SELECT t.trajectory_id, t.kind, (t.cut AND t.kind <> 'hint') OR coalesce(parent.cut, false) "
        "FROM run_trajectories t LEFT JOIN run_trajectories parent ON parent.run_id = t.run_id "
        "AND parent.trajectory_id = t.parent_id WHERE t.run_id = $run AND t.arm IN ('', 'base')"
    )
    outcomes = {(kind, is_touched, row_id in used) for row_id, kind, is_touched in of_base}
    kinds = {kind for kind, _, _ in outcomes}
    assert outcomes == {(kind, False, True) for kind in kinds} | {(kind, True, False) for kind in kinds}


def test_the_table_and_the_cases_are_about_the_same_changes() -> None:
    in_short_tier = {case.line for name, case in CASES.items() if name not in LATER_CASES}
    assert TABLE.keys() == in_short_tier | {UP_AND_DOWN}


def test_the_pace_settings_are_those_of_the_configuration_page() -> None:
    page = (ROOT / "docs/configuration.md").read_text()
    named = set(re.findall(r"^\| `([\w.]+)` .*\(pace\) \|$", page, re.MULTILINE))
    # of servers and prices: tests/heal_core/engines, since no scripted run has them
    named = {name for name in named if not name.startswith(("teacher.server.", "teacher.launch.", "teacher.price"))}
    students = {name.replace("teacher.", "student.") for name in named}  # the same keys, says the page
    # of lm-eval: tests/heal_core/lm_eval, since no scripted run has it
    assert named | students == {*PACE, "workspace"} | {f"evaluation.lm_eval.{name}" for name in OF_LM_EVAL}


def test_the_summary_counts_what_was_asked_of_the_models(bases: Callable[[Mapping[str, Any]], Any]) -> None:
    run = bases(BOTH_CONTROLS)
    ((num_tokens,),) = run.rows("SELECT sum(num_tokens)::BIGINT FROM trajectories")
    ((num_optimizer_steps,),) = run.rows("SELECT sum(num_optimizer_steps)::BIGINT FROM checkpoints")
    assert run.summary["generated"] == {
        **{kind: run.calls[kind] for kind in SAMPLES},
        "evaluation": run.calls["answers"],
        "controls": 0,
        "validity": 0,
        "lm_evals": 0,
        "tokens": num_tokens,
        "optimizer_steps": num_optimizer_steps,
    }


def test_a_verifier_that_changed_under_a_run_stops_it(
    lab: Any, bases: Callable[[Mapping[str, Any]], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its verdicts would not be found under the version that the run asks for: problems would seem ungraded."""
    workspace = lab.copy(bases({}).workspace, tmp_path / "workspace")
    another_math_verify(lab, monkeypatch, tmp_path, for_this_process=False)
    try:
        with pytest.raises(StoreError, match=r"math-verify .* 99\.0"):
            lab.run(workspace, {"rollouts.num_generations": N + 1})
    finally:
        lab.end_verifiers()
    monkeypatch.undo()
    assert lab.run(workspace, {"rollouts.num_generations": N + 1}).made["verdicts"]
