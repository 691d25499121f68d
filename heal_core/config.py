"""The settings of a run: one YAML file, with METHOD's defaults for all that it leaves out.

Groups of settings stand beside the code they control and are composed here. Unknown
keys are refused with the key, its value and the nearest valid name. What does not
belong here: anything that reads a model or a store.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from heal_core.bands import BandsConfig
from heal_core.breakpoints import BreakpointConfig
from heal_core.controls import ControlsConfig
from heal_core.curriculum import CurriculumConfig
from heal_core.engines.base import EngineConfig, SamplingConfig
from heal_core.engines.server_config import SECRET_NAME
from heal_core.errors import ConfigError
from heal_core.evaluation import EvaluationConfig
from heal_core.failures import FailuresConfig
from heal_core.gates import GatesConfig
from heal_core.hints import HintConfig
from heal_core.notify import NotifyConfig
from heal_core.promotion import PromotionConfig
from heal_core.pure import PureConfig
from heal_core.repair import GuidedConfig, RepairConfig
from heal_core.sft.config import SftConfig
from heal_core.sources.config import ProblemsConfig
from heal_core.steps import StepsConfig
from heal_core.verify.config import VerifyConfig

MIN_GENERATIONS = 8

_NOT_IDENTITY: dict[str, Any] = {
    "workspace": True,
    "on_busy": True,
    "chunk_problems": True,
    "failures": True,
    "notify": True,
    "teacher": True,
    "student": True,
    "scorer": True,
    "verify": {"num_workers", "max_tasks_per_worker"},
    "evaluation": True,
    "sft": True,
}
"""Where a run is kept and how fast it goes; models, `sft` and `evaluation` say themselves what is their identity."""


class RolloutsConfig(BaseModel):
    """How many attempts the teacher makes at each problem, and how they are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_generations: int = Field(default=30, ge=MIN_GENERATIONS)
    """N, the teacher's rollouts per problem."""
    sampling: SamplingConfig = SamplingConfig()
    use_imported: bool = True
    """Take what [`heal import`](import.md) brought in the place of the first of them."""

    @model_serializer(mode="wrap")
    def _leave_out_the_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a run's id is made of its settings: it keeps the id that it had before anything could be imported
        settings: dict[str, Any] = handler(self)
        return {name: value for name, value in settings.items() if name != "use_imported" or not value}


class RunConfig(BaseModel):
    """Everything a run depends on. `scorer` defaults to the teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workspace: str
    """Folder of the store, the checkpoints and the logs."""
    on_busy: Literal["refuse", "wait"] = "refuse"
    """What a run does while another one holds the workspace."""
    seed: int = 0
    """Decides every draw and the order of examples."""
    chunk_problems: int = Field(default=16, ge=1)
    """Problems per task, for those new to the workspace."""
    problems: ProblemsConfig
    teacher: EngineConfig
    student: EngineConfig
    student_start: Literal["base", "latest"] = "base"
    """Training starts from `student`, or from the latest one that was promoted
    ([operations.md](operations.md#what-a-night-is)).
    """
    scorer: EngineConfig | None = None
    rollouts: RolloutsConfig = RolloutsConfig()
    verify: VerifyConfig = VerifyConfig()
    steps: StepsConfig = StepsConfig()
    breakpoints: BreakpointConfig = BreakpointConfig()
    bands: BandsConfig = BandsConfig()
    hints: HintConfig = HintConfig()
    repair: RepairConfig = RepairConfig()
    guided: GuidedConfig = GuidedConfig()
    gates: GatesConfig = GatesConfig()
    pure: PureConfig = PureConfig()
    curriculum: CurriculumConfig = CurriculumConfig()
    sft: SftConfig = SftConfig()
    controls: ControlsConfig = ControlsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    promotion: PromotionConfig = PromotionConfig()
    failures: FailuresConfig = FailuresConfig()
    notify: NotifyConfig = NotifyConfig()

    @model_validator(mode="after")
    def _check_evaluation_reuses_rollouts(self) -> RunConfig:
        if self.evaluation.num_generations > self.rollouts.num_generations:
            raise ValueError(
                f"evaluation.num_generations ({self.evaluation.num_generations}) is larger than "
                f"rollouts.num_generations ({self.rollouts.num_generations}): the teacher's row needs as many "
                "samples; lower the one or raise the other"
            )
        return self

    @model_validator(mode="after")
    def _check_given_student(self) -> RunConfig:
        if self.evaluation.student is not None and self.student.engine == "openai":
            raise ValueError(
                f"evaluation.student ({self.evaluation.student}) is a model that HEAL loads, but the engine of student "
                "is openai: set student.engine to hf or vllm, or name the model that the server has in student"
            )
        return self

    @model_validator(mode="after")
    def _check_controls_of_hints(self) -> RunConfig:
        for arm in ("mismatched_hint", "answer_told"):
            if self.hints.arm == "answer" and getattr(self.controls, arm):
                raise ValueError(
                    f"controls.{arm} is compared with written hints, but hints.arm is answer, which writes none: "
                    "leave that control out, or set hints.arm to generated"
                )
        return self

    @model_validator(mode="after")
    def _check_controls_of_continuations(self) -> RunConfig:
        if self.repair.quota is not None and self.controls.continued:
            raise ValueError(
                f"controls.{self.controls.continued[0]} continues paths as often as HEAL does, but repair.quota ends "
                "HEAL's continuations early: leave the quota out where the two are compared, or that control"
            )
        return self

    @property
    def given_student(self) -> EngineConfig | None:
        """Return the model of `evaluation.student`, which runs as the student does; None where there is none."""
        name = self.evaluation.student
        return self.student.model_copy(update={"model_name_or_path": name, "revision": None}) if name else None

    @property
    def models(self) -> dict[str, EngineConfig]:
        """Return the model of each role; the scorer is the teacher unless it has a section of its own."""
        return {"teacher": self.teacher, "scorer": self.scorer or self.teacher, "student": self.student}

    def prices(self) -> dict[str, dict[str, Any]]:
        """Return the prices by role, of the models that have one, as a run notes them."""
        return {role: model.price.model_dump() for role, model in self.models.items() if model.price is not None}

    def identity(self) -> dict[str, Any]:
        """Return what makes a run this run: everything but where it is kept and how fast it goes."""
        return {
            **self.model_dump(mode="json", exclude=_NOT_IDENTITY),
            "teacher": self.teacher.identity(),
            "student": self.student.identity(),
            "scorer": self.scorer.identity() if self.scorer else None,
            "sft": self.sft.identity(),
            "evaluation": self.evaluation.identity(),
        }


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> RunConfig:
    """Return the config of a YAML file with `a.b=c` overrides applied.

    `${NAME}` in a value is replaced from the environment, but for those of `notify`.

    Raises:
        ConfigError: If the file is missing or not YAML, or a key or value is not meant.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"config file {path} cannot be read: {error.strerror}. Give the path of a YAML file, "
            "for instance deployments/lab/demo.yaml."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text file in UTF-8 ({error}). Give a YAML file.") from error
    settings = _parse_yaml(text, str(path))
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, found {type(settings).__name__}.")
    for override in overrides:
        _apply_override(settings, override)
    # what is told to whom may need secrets, and a run's config is stored: the hook reads the environment itself
    notify = {key: settings.pop(key) for key in ("notify",) if key in settings}
    return parse_config({**_expand(settings, str(path)), **notify}, str(path))


def parse_config(settings: dict[str, Any], where: str) -> RunConfig:
    """Return the validated config.

    Raises:
        ConfigError: With one line per fault: the key, the value, what was expected.
    """
    try:
        return RunConfig.model_validate(settings)
    except ValidationError as error:
        lines = [_describe(fault) for fault in _told(error.errors())]
        # not chained: a traceback would show the values, and one may be a secret in the wrong place
        raise ConfigError(f"{where}: " + "; ".join(lines)) from None


def parse_verify_config(settings: dict[str, Any], overrides: Sequence[str]) -> VerifyConfig:
    """Return how a run grades, with `verify.a=b` overrides applied.

    Of a run's stored config only `verify` is read, and there only what is known today: a run of an older
    HEAL may have settings that are gone.

    Raises:
        ConfigError: If an override is not meant, or not one of `verify`.
    """
    stored = settings.get("verify", {})
    tree = {"verify": {key: value for key, value in stored.items() if key in VerifyConfig.model_fields}}
    for override in overrides:
        if not override.startswith("verify."):
            raise ConfigError(
                f"override {override!r}: only settings of `verify` are used here (verify.timeout_seconds=20)."
            )
        _apply_override(tree, override)
    try:
        return VerifyConfig.model_validate(tree["verify"])
    except ValidationError as error:
        faults = (_describe({**fault, "loc": ("verify", *fault["loc"])}) for fault in error.errors())
        raise ConfigError("; ".join(faults)) from None


def _apply_override(settings: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r} is not of the form a.b=c, for instance rollouts.num_generations=16.")
    *parents, last = key.split(".")
    target = settings
    for name in parents:
        child = target.setdefault(name, {})
        if child is None:
            child = target[name] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"override {override!r}: {name} is a value, not a group of settings.")
        target = child
    target[last] = _parse_yaml(value, f"override {override!r}")


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not valid YAML: {error}") from error


def _expand(value: Any, where: str) -> Any:
    """Replace `${NAME}` in all texts."""
    if isinstance(value, dict):
        return {key: _expand(item, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, where) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"{where}: ${{{name}}} is used, but the environment has no variable {name}. Export it.")
        return os.environ[name]

    expanded = re.sub(r"\$\{(\w+)\}", replace, value)
    return os.path.expanduser(expanded) if expanded.startswith("~") else expanded


def _told(faults: Sequence[Any]) -> list[Any]:
    """Return the faults without lists that are too short only because an item of theirs is at fault."""
    places = [fault["loc"] for fault in faults]
    return [
        fault
        for fault in faults
        if fault["type"] != "too_short"
        or not any(len(place) > len(fault["loc"]) and place[: len(fault["loc"])] == fault["loc"] for place in places)
    ]


def _describe(fault: Any) -> str:
    """Return one fault of pydantic as: key, value, what is wrong, and the nearest valid name."""
    key = ".".join(str(part) for part in fault["loc"]) or "(the whole config)"
    if fault["type"] == "extra_forbidden":
        valid = _names_at(fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid names here: {', '.join(sorted(valid))}"
        if SECRET_NAME.search(key):
            hint = "a config holds no credential: put it in a variable of the environment (docs/configuration.md)"
        is_secret = key.startswith("notify.") or SECRET_NAME.search(key)  # or may be one
        value = "" if is_secret else f" (value {fault['input']!r})"
        return f"unknown key {key!r}{value}; {hint}"
    if fault["type"] == "missing":
        return f"key {key!r} is required"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    return f"key {key!r} has the value {fault['input']!r}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _names_at(path: Sequence[Any]) -> list[str]:
    """Return the valid names in the group of settings at `path`."""
    model: Any = RunConfig
    for name in path:
        if isinstance(name, int):  # the place in a list, whose items were looked up already
            continue
        field = model.model_fields.get(str(name))
        if field is None:
            return []
        model = next((c for c in _types_in(field.annotation) if issubclass(c, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _types_in(annotation: Any) -> Iterator[type]:
    """Yield the classes of an annotation: of `tuple[A, ...] | None` A and None."""
    arguments = get_args(annotation)
    if not arguments and isinstance(annotation, type):
        yield annotation
    for argument in arguments:
        yield from _types_in(argument)
