"""Real worker processes: a hang, a crash or a flood costs one item, and the others go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from heal_core.errors import InputError, TransientError
from heal_core.records import VerdictLabel
from heal_core.reference import Reference
from heal_core.verify.config import VerifyConfig
from heal_core.verify.pool import GradeItem, VerifierPool

TOWER = "\\boxed{9^{9^{9^{9}}}}"  # sympy tries to write out its 10^(10^(3.7e8)) digits


def item(item_id: str, answer: str, gold: str = "5") -> GradeItem:
    return GradeItem(item_id, f"So \\boxed{{{answer}}}.", Reference(gold))


def hang(item_id: str) -> GradeItem:
    return GradeItem(item_id, TOWER, Reference("1"))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(VerifyConfig(timeout_seconds=2.0)) as shared:
        yield shared


def test_every_item_gets_its_own_verdict(pool: VerifierPool) -> None:
    items = [item(f"id{k}", str(k), str(k - k % 2)) for k in range(200)]
    verdicts = list(pool.grade_all(items))
    assert sorted(item_id for item_id, _ in verdicts) == sorted(f"id{k}" for k in range(200))
    # An odd k is compared with k - 1.
    assert all((verdict.label is VerdictLabel.CORRECT) == (int(item_id[2:]) % 2 == 0) for item_id, verdict in verdicts)


def test_a_hang_is_killed_at_the_limit_and_the_others_go_on(pool: VerifierPool) -> None:
    list(pool.grade_all([item("warm", "5")] * 2))
    before = set(pool.worker_pids)
    verdicts = dict(pool.grade_all([hang("hang"), *(item(f"id{k}", "5") for k in range(50))]))
    hung = verdicts.pop("hang")
    assert (hung.label, hung.reason, hung.extracted) == (VerdictLabel.UNVERIFIABLE, "timeout", None)
    assert 2.0 <= hung.seconds < 4.0
    assert hung.verifier == "math-verify"
    assert all(verdict.label is VerdictLabel.CORRECT for verdict in verdicts.values())
    killed = before - set(pool.worker_pids)
    assert killed and not any(alive(pid) for pid in killed)


def test_results_stream_and_stopping_early_leaves_no_stale_result() -> None:
    with VerifierPool(VerifyConfig(timeout_seconds=60)) as pool:
        results = pool.grade_all([hang("hang"), item("quick", "5")])
        assert next(results)[0] == "quick"
        with pytest.raises(RuntimeError, match="unfinished"):
            next(pool.grade_all([item("c", "6")]))
        results.close()
        verdicts = dict(pool.grade_all([item("c", "6")]))
        assert [(item_id, verdict.reason) for item_id, verdict in verdicts.items()] == [("c", "different")]


def test_a_killed_worker_costs_its_item_only() -> None:
    """A segmentation fault or the kernel's memory killer looks like this."""
    with VerifierPool(VerifyConfig(timeout_seconds=60, num_workers=1)) as pool:
        assert [verdict.label for _, verdict in pool.grade_all([item("warm", "5")])] == [VerdictLabel.CORRECT]
        (pid,) = pool.worker_pids
        threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
        verdicts = dict(pool.grade_all([hang("victim"), *(item(f"id{k}", "5") for k in range(20))]))
        victim = verdicts.pop("victim")
        assert (victim.label, victim.reason) == (VerdictLabel.UNVERIFIABLE, "verifier_died")
        assert [verdict.label for verdict in verdicts.values()] == [VerdictLabel.CORRECT] * 20
        assert pool.worker_pids != [pid]


def test_workers_go_through_sets_in_the_same_order() -> None:
    """A verdict that depended on it would differ from one process to the next."""
    with VerifierPool(VerifyConfig(num_workers=1)) as pool:
        list(pool.grade_all([item("warm", "5")]))
        (pid,) = pool.worker_pids
        assert b"PYTHONHASHSEED=0" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_a_worker_that_died_idle_costs_nothing() -> None:
    with VerifierPool(VerifyConfig(num_workers=1)) as pool:
        list(pool.grade_all([item("warm", "5")]))
        os.kill(pool.worker_pids[0], signal.SIGKILL)
        time.sleep(0.3)
        verdicts = dict(pool.grade_all([item("a", "5"), item("b", "5")]))
    assert [verdict.label for verdict in verdicts.values()] == [VerdictLabel.CORRECT] * 2


def test_hostile_texts(pool: VerifierPool) -> None:
    megabyte = "x" * 1_000_000
    texts = {
        "long": f"{megabyte}\\boxed{{5}}",
        "long box": f"\\boxed{{{megabyte}}}",
        "open braces": "\\boxed{" * 140_000,
        "close braces": "}" * 1_000_000 + "\\boxed{5}",
        "nul": "\x00\\boxed{5\x00}\x00",
        "surrogate": "\ud800\\boxed{\udfff}",
        "nested": "\\boxed{\\boxed{\\boxed{5}}}",
        "parentheses": "\\boxed{" + "(" * 400 + "5" + ")" * 400 + "}",
    }
    verdicts = dict(pool.grade_all([GradeItem(name, text, Reference("5")) for name, text in texts.items()]))
    assert {name for name, verdict in verdicts.items() if verdict.label is VerdictLabel.CORRECT} >= {
        "long",
        "close braces",
        "nested",
    }
    assert verdicts["long box"].reason == "answer_too_long"
    assert verdicts["open braces"].reason == "no_answer"
    assert verdicts["nul"].reason == "unparsable_answer"
    assert len(verdicts) == len(texts)


def test_a_slow_caller_does_not_turn_finished_items_into_timeouts(pool: VerifierPool) -> None:
    verdicts = []
    for _, verdict in pool.grade_all([item(f"id{k}", "5") for k in range(2)]):
        verdicts.append(verdict.label)
        time.sleep(2.2)  # longer than the time limit
    assert verdicts == [VerdictLabel.CORRECT] * 2


def test_two_threads_take_turns(pool: VerifierPool) -> None:
    """verl issue 3407: graded from threads, everything silently scored 0."""
    collected: dict[str, str] = {}

    def work(name: str) -> None:
        for item_id, verdict in pool.grade_all([item(f"{name}{k}", "5") for k in range(50)]):
            collected[item_id] = str(verdict.label)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert collected == {f"{name}{k}": "correct" for name in "ab" for k in range(50)}


def test_an_unknown_problem_type_is_refused_at_the_call(pool: VerifierPool) -> None:
    with pytest.raises(InputError, match="item z has problem type 'essay'"):
        pool.grade_all([GradeItem("z", "t", Reference("5", "essay"))])


def test_nothing_to_do_starts_nothing() -> None:
    with VerifierPool(VerifyConfig()) as pool:
        assert list(pool.grade_all([])) == []
        assert pool.worker_pids == []


def test_workers_are_replaced_after_their_share_and_end_with_the_context() -> None:
    with VerifierPool(VerifyConfig(num_workers=1, max_tasks_per_worker=2)) as pool:
        seen = set()
        labels = []
        for _, verdict in pool.grade_all([item(f"id{k}", "5") for k in range(5)]):
            labels.append(verdict.label)
            seen.update(pool.worker_pids)
        assert labels == [VerdictLabel.CORRECT] * 5
        last = pool.worker_pids
    # Items 1-2, 3-4 and 5; a worker is gone from the list when its second verdict is out.
    assert len(seen) == 3 and len(last) == 1
    assert not any(alive(pid) for pid in seen)


def test_memory_is_limited() -> None:
    with VerifierPool(VerifyConfig(num_workers=1, max_memory_gib=0.5)) as pool:
        list(pool.grade_all([item("ok", "5")]))
        limits = Path(f"/proc/{pool.worker_pids[0]}/limits").read_text()
        # A text of 300 MB arrives as a message of as many, and both do not fit.
        verdict = dict(pool.grade_all([GradeItem("flood", "x" * 300_000_000, Reference("5"))]))["flood"]
    assert str(2**29) in next(line for line in limits.splitlines() if line.startswith("Max address space"))
    assert (verdict.label, verdict.reason) == (VerdictLabel.UNVERIFIABLE, "verifier_died")


def test_a_worker_that_cannot_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with VerifierPool(VerifyConfig(num_workers=1)) as pool, pytest.raises(TransientError, match="exit code 1"):
        list(pool.grade_all([item("a", "5")]))


def test_workers_die_with_a_killed_parent() -> None:
    script = """
        import time
        from heal_core.verify.config import VerifyConfig
        from heal_core.reference import Reference
        from heal_core.verify.pool import GradeItem, VerifierPool
        pool = VerifierPool(VerifyConfig(timeout_seconds=60, num_workers=1))
        list(pool.grade_all([GradeItem("a", "5", Reference("5"))]))
        print(*pool.worker_pids, flush=True)
        list(pool.grade_all([GradeItem("b", "\\\\boxed{9^{9^{9^{9}}}}", Reference("1"))]))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    time.sleep(0.3)
    assert alive(pid)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
