"""Exported files through the real consumers: `datasets` reads them, TRL's trainer makes HEAL's own tokens and mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heal_core.export.examples import TracedExample
from heal_core.export.files import write_rows
from heal_core.export.stage import COLUMNS, row_maker
from heal_core.export.template_check import TemplateCheck
from heal_core.sft.data import Example, TokenisedExample, tokenise_examples

pytestmark = pytest.mark.slow

RESPONSES = ("So it is \\boxed{2}", "1.\n\n2.\n\nThe final answer is \\boxed{97}", " blanks around, ünd <b> & \\ ")


@pytest.fixture
def examples(make_example: Callable[..., TracedExample]) -> list[TracedExample]:
    return [make_example(text, f"What is {i}?\n", f"t{i}") for i, text in enumerate(RESPONSES)]


def load(path: Path, cache: Path) -> Any:
    import datasets

    kind = "parquet" if path.suffix == ".parquet" else "json"
    return datasets.load_dataset(kind, data_files=str(path), split="train", cache_dir=str(cache))


@pytest.fixture
def trained_by_trl(lab_student: Path, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that lets SFTTrainer prepare a file, and returns what it would train on."""
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    def prepare(path: Path, tokenizer: Any, **settings: Any) -> list[dict[str, Any]]:
        args = SFTConfig(
            output_dir=str(tmp_path / "trl"), max_length=None, use_cpu=True, bf16=False, report_to="none", **settings
        )
        trainer = SFTTrainer(
            model=str(lab_student), args=args, train_dataset=load(path, tmp_path / "cache"), processing_class=tokenizer
        )
        rows: list[dict[str, Any]] = trainer.train_dataset.to_list()
        return rows

    return prepare


def trained_by_heal(examples: list[TracedExample], tokenizer: Any) -> tuple[TokenisedExample, ...]:
    rows = [Example(example.trajectory_id, example.prompt, example.response) for example in examples]
    return tokenise_examples(rows, tokenizer, 10_000).examples


@pytest.mark.parametrize(
    ("layout", "suffix", "settings"),
    [
        ("messages", ".parquet", {"assistant_only_loss": True}),
        ("prompt-completion", ".jsonl", {}),
        ("text", ".parquet", {}),
    ],
)
def test_trl_trains_the_tokens_that_heal_trained(
    examples: list[TracedExample],
    new_tokenizer: Callable[..., Any],
    trained_by_trl: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
    layout: Any,
    suffix: str,
    settings: dict[str, Any],
) -> None:
    tokenizer, path = new_tokenizer(), tmp_path / f"out{suffix}"
    as_row = row_maker(layout, TemplateCheck(tokenizer, "student", layout))
    write_rows(path, map(as_row, examples), COLUMNS[layout])
    found = trained_by_trl(path, tokenizer, **settings)
    assert [row["trajectory_id"] for row in found] == ["t0", "t1", "t2"]
    for row, wanted in zip(found, trained_by_heal(examples, tokenizer), strict=True):
        assert row["input_ids"] == wanted.input_ids
        assert row["labels"] == wanted.labels


def test_text_keeps_reasoning_that_the_template_drops(
    make_example: Callable[..., TracedExample],
    published: Callable[[str], Any],
    trained_by_trl: Callable[..., list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    tokenizer = published("deepseek_r1_distill")
    examples = [make_example("1 and 1 are 2.\n</think>\n\nSo \\boxed{2}")]
    (wanted,) = trained_by_heal(examples, tokenizer)
    (lost, kept) = (
        trained_by_trl(path, tokenizer)[0]
        for layout in ("prompt-completion", "text")
        if write_rows(
            path := tmp_path / f"{layout}.jsonl",
            map(row_maker(layout, TemplateCheck(tokenizer, "student", layout)), examples),  # type: ignore[arg-type]
            COLUMNS[layout],
        )
    )
    assert "1 and 1 are 2." not in tokenizer.decode(lost["input_ids"])
    assert (kept["input_ids"], kept["labels"]) == (wanted.input_ids, wanted.labels)
