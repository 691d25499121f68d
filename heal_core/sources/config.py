"""Where problems come from: the settings of a run's problems, and of each source.

What does not belong here: reading (`read` and a module per kind), and what is made of the rows
(`heal_core/problems.py`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from heal_core.split import BY_HASH, HELD_OUT, TRAIN

_LATER = {
    "sources", "columns", "one_per_cluster", "decontaminate", "contamination_words", "contamination_share"
}  # fmt: skip
"""Settings of problems that came later than others."""
_LATER_OF_SOURCE = {"reasoning_gym", "name"}

Meaning = Literal["problem", "answer", "source", "uuid", "problem_type", "options", "tolerance", "unit", "spec"]
Format = Literal["jsonl", "csv", "parquet"]


def _check_columns(columns: dict[str, Meaning]) -> dict[str, Meaning]:
    """Refuse a mapping in which two columns are to mean the same."""
    seen: dict[str, str] = {}
    for column, meaning in columns.items():
        if meaning in seen:
            raise ValueError(
                f"columns: both {seen[meaning]!r} and {column!r} are mapped to {meaning}; keep one of them"
            )
        seen[meaning] = column
    return columns


_KINDS = ("path", "dataset", "function", "reasoning_gym")

Columns = Annotated[dict[str, Meaning], AfterValidator(_check_columns)]


class DatasetConfig(BaseModel):
    """A Hugging Face dataset; names as in `datasets.load_dataset`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """Of a Hugging Face dataset: its id on the hub, or a folder, saved with `save_to_disk` or of Parquet, JSON or CSV
    files.
    """
    name: str | None = None
    """Which configuration of the dataset."""
    split: str = "train"
    """Which of its own splits."""
    revision: str | None = None
    """Which version on the hub."""
    streaming: bool = False
    """Read rows while they arrive, without a copy on disk."""


class GymConfig(BaseModel):
    """A generator of the package reasoning-gym."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    """Generator of problems that reasoning-gym makes and scores, as it names it, such as `chain_sum`."""
    size: int = Field(default=500, ge=1)
    """How many entries it makes."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """What the entries depend on."""
    config: dict[str, JsonValue] = {}
    """Settings of the generator; reasoning-gym checks them."""
    curriculum: dict[str, int] | int | None = None
    """How hard, in levels of its curriculum: the level of each attribute, those left out at 0; or one level for all of
    them.
    """

    @field_validator("config")
    @classmethod
    def _sort_keys(cls, config: dict[str, JsonValue]) -> dict[str, JsonValue]:
        # they stand in each problem's spec: the same settings in another order are the same problems
        return dict(sorted(config.items()))


class SourceConfig(BaseModel):
    """One source of problems: exactly one of `path`, `dataset`, `function` and `reasoning_gym`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = None
    """Files of problems: a file, a glob, or a URL of either."""
    dataset: DatasetConfig | None = None
    """A Hugging Face dataset."""
    function: str | None = None
    """`package.module:function`, called without arguments; it returns rows."""
    reasoning_gym: GymConfig | None = None
    """A generator of that package."""
    format: Format | None = None
    """Of the files; none goes by the ending, and takes any other one for JSON Lines."""
    columns: Columns = {}
    """Column: meaning, where names do not say it: `problem`, `answer`, `source`, `uuid`, `problem_type`, `options`,
    `tolerance`, `unit` or `spec`. Left out: `problems.columns`.
    """
    filter: str | None = None
    """A condition in SQL on the source's columns; rows for which it is not true are left out."""
    sample: int | None = Field(default=None, ge=1)
    """Draw so many of the rows that pass the filter, whatever their order."""
    sample_seed: int = 0
    """Which ones are drawn."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first so many good rows, and read no further; not with `sample`."""
    split: Literal["hash", "train", "held_out"] = "hash"
    """The side of its problems; `hash` decides by the problem."""
    name: str | None = Field(default=None, pattern=r"\S")
    """What the rows of an evaluation call it ([evaluation.md](evaluation.md#benchmarks-of-your-own)); sources with the
    same name are one benchmark. None: the path, the dataset with its parts, or the generator with its seed.
    """

    @model_validator(mode="after")
    def _check_kind(self) -> SourceConfig:
        given = [name for name in _KINDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a source of problems has {' and '.join(given) or 'none'} of {', '.join(_KINDS[:-1])} and "
                f"{_KINDS[-1]}; give exactly one"
            )
        if self.format is not None and self.path is None:
            raise ValueError(f"format {self.format} is of files, and this source is a {given[0]}; leave it out")
        if self.sample is not None and self.limit is not None:
            raise ValueError(
                f"sample ({self.sample}) draws from all rows, limit ({self.limit}) stops reading early; "
                "give one of them"
            )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # as below: a run of other sources keeps its id
        settings: dict[str, Any] = handler(self)
        return {name: value for name, value in settings.items() if name not in _LATER_OF_SOURCE or value is not None}

    @property
    def benchmark(self) -> str:
        """What the rows of an evaluation call it."""
        return self.name or self.label

    @property
    def label(self) -> str:
        """The source as messages and counts name it."""
        if self.reasoning_gym is not None:
            return f"reasoning-gym:{self.reasoning_gym.dataset}:{self.reasoning_gym.seed}"
        if self.dataset is None:
            return str(self.path or self.function)
        parts = (self.dataset.path, self.dataset.name, self.dataset.split, self.dataset.revision)
        return ":".join(part for part in parts if part)


class ProblemsConfig(BaseModel):
    """Which problems, and how they are split: either `path`, the simple form, or `sources`.

    Source: definition D1 (docs/method.md).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = None
    """The problems as JSON Lines, CSV or Parquet: a file, a glob, or a URL of either. This or `sources`."""
    limit: int | None = Field(default=None, ge=1)
    """Take only the first so many good rows of `path`."""
    evaluation_path: str | None = None
    """Held-out problems, as `path`; then all of `path` is train."""
    sources: tuple[SourceConfig, ...] | None = Field(default=None, min_length=1)
    """Any number of sources, each with its own settings, in place of `path`, `limit` and `evaluation_path`."""
    columns: Columns = {}
    """Column: meaning, for sources that do not say it themselves."""
    held_out_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of clusters of near-duplicates held out where a hash decides."""
    duplicate_jaccard: float = Field(default=0.8, gt=0, le=1)
    """Similarity of word 5-grams from which two problems are near-duplicates (D1)."""
    one_per_cluster: bool = False
    """Keep one training problem of each cluster of near-duplicates."""
    decontaminate: tuple[SourceConfig, ...] = ()
    """Evaluation sets that training problems must not hold, besides what is held out."""
    contamination_words: int = Field(default=8, ge=1)
    """n of the n-grams of words in which they are compared."""
    contamination_share: float = Field(default=0.8, ge=0, le=1)
    """Share of an evaluation problem's n-grams from which a training problem is contaminated; at 0 one n-gram is
    enough.
    """

    @model_validator(mode="after")
    def _check_form(self) -> ProblemsConfig:
        if (self.path is None) == (self.sources is None):
            found = "neither" if self.path is None else "both"
            raise ValueError(
                f"problems has {found} of path (one file) and sources (a list of them); give exactly one of the two"
            )
        for name in ("limit", "evaluation_path"):
            if self.sources is not None and getattr(self, name) is not None:
                remedy = "limit" if name == "limit" else "split: held_out"
                raise ValueError(f"problems.{name} goes with problems.path; with sources, give one of them `{remedy}`")
        return self

    @model_validator(mode="after")
    def _check_evaluation_sets(self) -> ProblemsConfig:
        for source in self.decontaminate:
            if source.split != BY_HASH:
                raise ValueError(
                    f"problems.decontaminate: {source.label} has split {source.split}, but no problem of it is "
                    "taken; leave it out, or name the source in problems.sources"
                )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_used(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings: one without a later one keeps the id that it had before there was any
        settings: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            name: value
            for name, value in settings.items()
            if name not in _LATER or getattr(self, name) != fields[name].default
        }

    def list_sources(self) -> tuple[SourceConfig, ...]:
        """Return the sources of either form."""
        if self.sources is not None:
            return self._with_columns(self.sources)
        split = BY_HASH if self.evaluation_path is None else TRAIN
        first = {"path": self.path, "limit": self.limit, "split": split, "columns": self.columns}
        second = {"path": self.evaluation_path, "split": HELD_OUT, "columns": self.columns}
        forms = [first] if self.evaluation_path is None else [first, second]
        return tuple(SourceConfig.model_validate(form) for form in forms)

    def list_evaluation_sets(self) -> tuple[SourceConfig, ...]:
        """Return the sources of `decontaminate`."""
        return self._with_columns(self.decontaminate)

    def _with_columns(self, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        return tuple(
            source if source.columns else source.model_copy(update={"columns": self.columns}) for source in sources
        )

    @property
    def label(self) -> str:
        """All sources as a message names them."""
        return ", ".join(source.label for source in self.list_sources())
