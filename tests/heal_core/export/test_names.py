from pathlib import Path

import pytest

from heal_core.export.names import has_hub_form, is_hub_id, last_part, public_name


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B"),
        ("deployments/lab/student", "deployments/lab/student"),
        ("https://example.org/problems.jsonl", "https://example.org/problems.jsonl"),
        ("/home/ann/models/student/", "student"),
        ("~/models/student", "student"),
        ("../ann/student", "student"),
        ("file:///home/ann/problems.jsonl", "problems.jsonl"),
        ("/", "local"),
        ("s3://key:secret@bucket/data/*.parquet?token=secret", "s3://bucket/data/*.parquet"),
    ],
)
def test_paths_of_this_machine_tell_only_their_last_part(name: str, told: str) -> None:
    assert public_name(name) == told


def test_what_has_the_form_of_a_hub_id_and_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_hub_id("Qwen/Qwen3-8B") and is_hub_id("gpt2")
    assert not any(is_hub_id(name) for name in ("a/b/c", "/a", "./a", "a b", ""))
    (tmp_path / "models/student").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("models/student") and has_hub_form("models/student")


def test_of_a_relative_path_too_the_last_part_can_be_told() -> None:
    assert [last_part(name) for name in ("lab/student", "./lab/student/", "/home/ann/student", "/")] == [
        "student", "student", "student", "local",
    ]  # fmt: skip
