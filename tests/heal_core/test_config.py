from pathlib import Path
from typing import Any

import pytest
import yaml

from heal_core.config import RunConfig, load_config, parse_config
from heal_core.errors import ConfigError

MINIMAL = {
    "workspace": "w",
    "problems": {"path": "problems.jsonl"},
    "teacher": {"model_name_or_path": "teacher"},
    "student": {"model_name_or_path": "student"},
}
ROOT = Path(__file__).parents[2]


def parse(**changes: Any) -> RunConfig:
    return parse_config(MINIMAL | changes, "run.yaml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return path


def test_what_is_left_out_has_the_methods_defaults(file: Path) -> None:
    config = load_config(file)
    assert config.rollouts.num_generations == 30
    assert (config.repair.max_paths, config.repair.num_generations) == (10, 20)
    assert (config.pure.score, config.pure.epsilon, config.pure.drop_fraction) == ("ratio", 0.01, 0.2)
    assert (config.curriculum.max_per_problem, config.curriculum.epochs) == (4, (2, 1, 2))
    assert (config.sft.learning_rate, config.sft.batch_size) == (1e-5, 8)
    assert config.scorer is None


def test_the_demos_config_is_valid() -> None:
    assert load_config(ROOT / "deployments" / "lab" / "demo.yaml").rollouts.num_generations >= 8


@pytest.mark.parametrize(
    ("changes", "key", "value", "nearest"),
    [
        ({"rolouts": 3}, "rolouts", "3", "rollouts"),
        ({"rollouts": {"num_generation": 16}}, "rollouts.num_generation", "16", "num_generations"),
        ({"rollouts": {"sampling": {"temprature": 1}}}, "rollouts.sampling.temprature", "1", "temperature"),
        (
            {"scorer": {"model_name_or_path": "m", "dtyp": "float32"}}, "scorer.dtyp", "'float32'", "dtype",
        ),  # below an optional group
        (
            {"problems": {"sources": [{"path": "p"}, {"path": "q", "smaple": 3}]}},
            "problems.sources.1.smaple", "3", "sample",
        ),  # in a list
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_its_value_and_the_nearest_name(
    changes: dict[str, Any], key: str, value: str, nearest: str
) -> None:
    with pytest.raises(ConfigError) as error:
        parse(**changes)
    assert str(error.value) == f"run.yaml: unknown key '{key}' (value {value}); did you mean '{nearest}'?"


def test_an_unknown_key_without_a_near_name_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"valid names here: answer_told, .*equal_tokens, .*rejection_sampling"):
        parse(controls={"xyz": 1})


def test_a_list_is_not_called_too_short_for_the_fault_of_its_item() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({**MINIMAL, "problems": {"sources": [{"path": "q", "split": "test"}]}}, "run.yaml")
    assert "problems.sources.0.split" in str(raised.value) and "at least 1 item" not in str(raised.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_config({"teacher": {}, "student": {"model_name_or_path": "s"}, "seeds": 1}, "run.yaml")
    for said in ("'workspace' is required", "'problems' is required", "'teacher.model_name_or_path' is required"):
        assert said in str(error.value)
    assert "did you mean 'seed'?" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": "many"}, "key 'seed' has the value 'many': input should be a valid integer"),
        ({"rollouts": {"num_generations": 0}}, "key 'rollouts.num_generations' has the value 0: input should be gr"),
        ({"rollouts": {"num_generations": 7}}, "key 'rollouts.num_generations' has the value 7: input should be gr"),
        ({"rollouts": [16]}, "key 'rollouts' has the value [16]: input should be a valid dictionary"),
        ({"rollouts": {"sampling": {"top_p": 0}}}, "key 'rollouts.sampling.top_p' has the value 0: input should be gr"),
        ({"curriculum": {"epochs": [1, 2]}}, "key 'curriculum.epochs.2' is required"),
        ({"hints": {"arm": "answers"}}, "key 'hints.arm' has the value 'answers'"),
        ({5: 3}, "key '5' has the value 5: keys should be strings"),
        ({"sft": {"save_total_limit": 1}}, "key 'sft.save_total_limit' has the value 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(changes: dict[Any, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(MINIMAL | changes, "run.yaml")
    assert said in str(error.value)


def test_eight_generations_are_the_fewest() -> None:
    assert parse(rollouts={"num_generations": 8}).rollouts.num_generations == 8


def test_the_teachers_row_needs_as_many_rollouts_as_the_evaluation() -> None:
    with pytest.raises(ConfigError, match=r"evaluation.num_generations \(9\) is larger than.* \(8\).*lower the one"):
        parse(rollouts={"num_generations": 8}, evaluation={"num_generations": 9})
    assert parse(rollouts={"num_generations": 8}, evaluation={"num_generations": 8}).evaluation.num_generations == 8


def test_overrides_reach_into_groups_that_the_file_has_not(file: Path) -> None:
    config = load_config(
        file,
        [
            "rollouts.sampling.temperature=0.9",
            "rollouts.num_generations=16",
            "teacher.dtype=float32",
            "seed=7",
            "curriculum.epochs=[1, 1, 1]",
            "problems.path=a=b.jsonl",
        ],
    )
    assert (config.rollouts.sampling.temperature, config.rollouts.num_generations, config.seed) == (0.9, 16, 7)
    assert (config.teacher.model_name_or_path, config.teacher.dtype) == ("teacher", "float32")
    assert config.curriculum.epochs == (1, 1, 1)
    assert config.problems.path == "a=b.jsonl"


def test_an_override_fills_a_group_that_is_empty_in_the_file(file: Path) -> None:
    file.write_text(file.read_text() + "scorer:\n")
    assert load_config(file, ["scorer.model_name_or_path=s"]).scorer is not None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed", "is not of the form a.b=c"),
        ("=3", "is not of the form a.b=c"),
        ("workspace.x=3", "workspace is a value, not a group"),
        ("rollouts.num_generation=16", "did you mean 'num_generations'?"),
        ("seed=[1,", "override 'seed=[1,' is not valid YAML"),  # once an error of PyYAML
    ],
)
def test_an_override_that_cannot_be_meant_is_refused(file: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(file, [override])
    assert said in str(error.value)


def test_the_environment_is_filled_in_everywhere(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAL_TEST_ROOT", "/data")
    monkeypatch.setenv("HEAL_TEST_SEED", "11")
    settings = MINIMAL | {"workspace": "${HEAL_TEST_ROOT}/w", "seed": "${HEAL_TEST_SEED}"}
    file.write_text(yaml.safe_dump(settings))
    config = load_config(file, ["teacher.model_name_or_path=${HEAL_TEST_ROOT}/teacher"])
    assert (config.workspace, config.seed) == ("/data/w", 11)
    assert config.teacher.model_name_or_path == "/data/teacher"


def test_a_variable_that_is_not_set_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEAL_TEST_ROOT", raising=False)
    with pytest.raises(ConfigError, match=r"no variable HEAL_TEST_ROOT. Export it"):
        load_config(file, ["workspace=${HEAL_TEST_ROOT}/w"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must hold a mapping of settings, found NoneType"),
        (b"- a\n- b\n", "must hold a mapping of settings, found list"),
        (b"a: [1\n", "is not valid YAML"),
        (b"a: \xff\xfe\n", "is not a text file in UTF-8"),  # once a UnicodeDecodeError
    ],
)
def test_a_file_without_settings_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert said in str(error.value)
    assert "run.yaml" in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=f"config file {path} cannot be read.*Give the path"):
            load_config(path)


def test_where_a_run_is_kept_and_how_fast_it_goes_is_not_its_identity() -> None:
    here = parse(scorer={"model_name_or_path": "s"})
    there = parse(
        workspace="elsewhere",
        chunk_problems=4,
        teacher={"model_name_or_path": "teacher", "batch_size": 2, "num_threads": 1, "stall_seconds": 5},
        scorer={"model_name_or_path": "s", "batch_size": 3},
        verify={"num_workers": 7},
        sft={"num_threads": 3},
    )
    assert here.identity() == there.identity()


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"teacher": {"model_name_or_path": "other"}},
        {"teacher": {"model_name_or_path": "teacher", "dtype": "float32"}},
        {"scorer": {"model_name_or_path": "teacher"}},
        {"rollouts": {"num_generations": 31}},
        {"rollouts": {"sampling": {"max_tokens": 100}}},
        {"verify": {"timeout_seconds": 6}},
        {"sft": {"learning_rate": 2e-5}},
        {"controls": {"equal_tokens": False}},
    ],
)
def test_whatever_shapes_a_run_is_in_its_identity(changes: dict[str, Any]) -> None:
    assert parse(**changes).identity() != parse().identity()
