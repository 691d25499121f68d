import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from heal_core.logs import JsonLines, log_context, log_to

logger = logging.getLogger("heal")

Read = Callable[[], list[dict[str, Any]]]

WRITER = """
import logging, sys
from pathlib import Path
from heal_core.logs import log_context, log_to
with log_to(Path(sys.argv[1])), log_context(run=sys.argv[2]):
    for number in range(2000):
        logging.getLogger("heal").info("line %d %s", number, "x" * (number % 700))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "heal.jsonl"


@pytest.fixture
def read(path: Path) -> Read:
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def inner() -> Iterator["Shipped"]:
    """A handler on the logger itself, as Prefect attaches one."""
    handler = Shipped()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


class Shipped(logging.Handler):
    """Keeps what a handler that knows only messages would ship."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(self.format(record))


def test_a_line_says_when_what_and_about_what(path: Path, read: Read) -> None:
    before = datetime.now(UTC)
    with log_to(path), log_context(run="3f2a81c0ff", phase="repairs", shard="chunk 3"):
        logger.info("repairs: done in %.1f s", 2)
    (line,) = read()
    assert abs((datetime.fromisoformat(line.pop("time")) - before).total_seconds()) < 5
    assert line == {
        "level": "INFO",
        "message": "repairs: done in 2.0 s",
        "run": "3f2a81c0ff",
        "phase": "repairs",
        "shard": "chunk 3",
    }


def test_contexts_nest_and_are_restored(path: Path, read: Read) -> None:
    with log_to(path):
        with log_context(run="r"):
            with log_context(phase="p", shard="s"):
                logger.info("inside")
                with log_context(shard="t"):
                    logger.info("deeper")
            with pytest.raises(KeyError), log_context(phase="q"):
                raise KeyError
            logger.info("between")
        logger.info("outside")
    about = {line["message"]: (line["run"], line["phase"], line["shard"]) for line in read()}
    assert about == {
        "inside": ("r", "p", "s"),
        "deeper": ("r", "p", "t"),
        "between": ("r", None, None),
        "outside": (None, None, None),
    }


def test_threads_have_contexts_of_their_own(path: Path, read: Read) -> None:
    together = threading.Barrier(2)

    def work(shard: str) -> None:
        with log_context(shard=shard):
            together.wait(10)
            logger.info(shard)

    with log_to(path), log_context(run="r"):
        threads = [
            threading.Thread(target=copy_context().run, args=(work, f"chunk {number}"))  # as Prefect submits tasks
            for number in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted((line["run"], line["shard"], line["message"]) for line in read()) == [
        ("r", "chunk 0", "chunk 0"),
        ("r", "chunk 1", "chunk 1"),
    ]


def test_an_exception_stays_on_one_line(path: Path, read: Read) -> None:
    with log_to(path):
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logger.exception("it failed\nhere")
    (line,) = read()
    assert (line["level"], line["message"]) == ("ERROR", "it failed\nhere")
    assert line["exception"].startswith("Traceback") and line["exception"].endswith("ValueError: two\nlines")


def test_any_text_is_written(path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger, "propagate", False)  # pytest could not report what it captured of a lone surrogate
    text = 'ü 数 \u2028 " \\ \x00 \ud800'
    with log_to(path):
        logger.info("%s", text)
    assert [line["message"] for line in read()] == [text]


def test_nothing_is_left_installed(path: Path) -> None:
    before = list(logger.handlers), list(logger.filters), logger.level
    with pytest.raises(KeyError), log_to(path):
        assert logger.isEnabledFor(logging.INFO)  # whatever the root logger says
        raise KeyError
    logger.warning("after")
    assert (logger.handlers, logger.filters, logger.level) == before
    assert not path.exists()  # nothing was said


def test_lines_are_added_to_those_of_earlier_runs(path: Path, read: Read) -> None:
    for number in range(2):
        with log_to(path):
            logger.info("run %d", number)
    assert [line["message"] for line in read()] == ["run 0", "run 1"]


def test_handlers_of_the_logger_itself_get_what_it_is_about_in_the_message(path: Path, inner: Shipped) -> None:
    with log_to(path):
        logger.info("opened")
        with log_context(run="3f2a81c0ffee", phase="repairs", shard="chunk 3"):
            logger.info("%d left", 2)
            with log_context(shard="repairs chunk 4"):
                logger.info("%d left", 1)
    logger.warning("closed")
    assert inner.messages == [
        "opened",
        "[run 3f2a81c0ffee · repairs · chunk 3] 2 left",
        "[run 3f2a81c0ffee · repairs · chunk 4] 1 left",
        "closed",
    ]


def test_the_console_is_left_as_it_is(path: Path, inner: Shipped, caplog: pytest.LogCaptureFixture) -> None:
    with log_to(path), log_context(run="3f2a81c0ffee"):
        logger.info("%d left", 2)
    assert [record.getMessage() for record in caplog.records] == ["2 left"]


def test_a_message_that_does_not_fit_its_arguments_ends_nothing(
    path: Path, read: Read, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "propagate", False)  # pytest's own handlers raise
    with log_to(path):
        logger.info("%d", "no number")
        logger.info("goes on")
    assert [line["message"] for line in read()] == ["goes on"]
    assert "Logging error" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_to(tmp_path / "no folder" / "heal.jsonl"):
        logger.info("lost")
    assert capsys.readouterr().err == ""


# ---- size


def line_of(path: Path, text: str, max_bytes: int) -> JsonLines:
    lines = JsonLines(path, max_bytes)
    lines.emit(logging.LogRecord("heal", logging.INFO, "", 0, text, None, None))
    return lines


def test_a_full_file_is_moved_away_and_one_is_kept(path: Path) -> None:
    for text in ("first", "second", "third", "fourth"):
        line_of(path, text, max_bytes=250).close()  # each line has about 100 bytes
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["third", "fourth"]
    moved = path.with_name("heal.jsonl.1")
    assert [json.loads(line)["message"] for line in moved.read_text().splitlines()] == ["first", "second"]
    line_of(path, "x" * 1000, max_bytes=250).close()  # longer than a file may be: it gets one to itself
    line_of(path, "last", max_bytes=250).close()
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["last"]
    assert sorted(os.listdir(path.parent)) == ["heal.jsonl", "heal.jsonl.1"]


def test_a_writer_follows_a_file_that_another_one_moved(path: Path) -> None:
    one = line_of(path, "one", max_bytes=150)
    line_of(path, "two", max_bytes=150).close()  # moves it
    one.emit(logging.LogRecord("heal", logging.INFO, "", 0, "three", None, None))
    one.close()
    # not into the file that was moved, and the move was not done twice over "two"
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["three"]
    moved = path.with_name("heal.jsonl.1")
    assert [json.loads(line)["message"] for line in moved.read_text().splitlines()] == ["two"]


@pytest.mark.slow
def test_lines_of_several_processes_do_not_mix(path: Path, read: Read) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"run {number}"]) for number in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = read()
    assert len(lines) == 6000
    for number in range(3):
        own = [line["message"].split()[1] for line in lines if line["run"] == f"run {number}"]
        assert own == [str(i) for i in range(2000)]
