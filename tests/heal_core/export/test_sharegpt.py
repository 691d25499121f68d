"""The entry and the rows are checked against a schema written from LLaMA-Factory's documented data format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from heal_core.errors import InputError
from heal_core.export.examples import TracedExample, as_sharegpt
from heal_core.export.sharegpt import INFO_FILE, add_entry, check_name, describe_dataset

TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
COLUMNS = ("messages", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag")
INFO_SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["file_name", "formatting"],
        "additionalProperties": False,
        "properties": {
            "file_name": {"type": "string", "pattern": r"\.(json|jsonl|csv|parquet|arrow)$"},
            "formatting": {"enum": ["sharegpt"]},  # the default is alpaca
            "ranking": {"type": "boolean"},
            "split": {"type": "string"},
            "num_samples": {"type": "integer"},
            "columns": {"type": "object", "additionalProperties": False,
                        "properties": {name: {"type": "string"} for name in COLUMNS}},
            "tags": {"type": "object", "additionalProperties": False,
                     "properties": {name: {"type": "string"} for name in TAGS}},
        },
    },
}  # fmt: skip


def row_schema(entry: dict[str, dict[str, str]]) -> dict[str, object]:
    """Return the schema of a row under an entry: human and gpt take turns, the human first."""
    tags = entry["tags"]

    def turn(role: str) -> dict[str, object]:
        return {
            "type": "object",
            "required": [tags["role_tag"], tags["content_tag"]],
            "additionalProperties": False,
            "properties": {
                tags["role_tag"]: {"const": role},
                tags["content_tag"]: {"type": "string", "minLength": 1},
            },
        }

    turns = [turn(tags["user_tag"]), turn(tags["assistant_tag"])]
    messages = {"type": "array", "prefixItems": turns, "minItems": 2, "maxItems": 2}
    column = entry["columns"]["messages"]
    return {"type": "object", "required": [column], "properties": {column: messages}}


def test_entry_and_rows_are_as_documented(make_example: Callable[..., TracedExample]) -> None:
    entry = describe_dataset("heal.jsonl")
    jsonschema.validate({"heal": entry}, INFO_SCHEMA)
    jsonschema.validate(as_sharegpt(make_example()), row_schema(entry))
    with pytest.raises(jsonschema.ValidationError):  # the schema can refuse
        jsonschema.validate({"conversations": [{"from": "user", "value": "x"}]}, row_schema(entry))


def test_the_data_sets_of_others_stay(tmp_path: Path) -> None:
    other = {"script_url": "x", "columns": {"prompt": "fräge"}}
    path = tmp_path / INFO_FILE
    path.write_text(json.dumps({"theirs": other}), encoding="utf-8")
    check_name(tmp_path, "heal", force=False)
    assert add_entry(tmp_path, "heal", "heal.jsonl") == 1
    assert json.loads(path.read_text()) == {"theirs": other, "heal": describe_dataset("heal.jsonl")}
    with pytest.raises(InputError, match="has a data set 'heal' already"):
        check_name(tmp_path, "heal", force=False)
    check_name(tmp_path, "heal", force=True)
    assert add_entry(tmp_path, "heal", "new.jsonl") == 1
    assert json.loads(path.read_text())["heal"]["file_name"] == "new.jsonl"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_description_that_cannot_be_read_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / INFO_FILE).write_text(text)
    with pytest.raises(InputError, match=INFO_FILE):
        check_name(tmp_path, "heal", force=True)
    with pytest.raises(InputError, match=INFO_FILE):
        add_entry(tmp_path, "heal", "heal.jsonl")
    assert (tmp_path / INFO_FILE).read_text() == text
