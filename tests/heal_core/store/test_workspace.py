import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from heal_core.errors import StoreError, WorkspaceBusyError
from heal_core.store.workspace import Workspace

HOLDER = """
import sys, time
from heal_core.store.workspace import Workspace
with Workspace(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def test_naming_a_workspace_touches_nothing(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    assert workspace.root.is_absolute()
    assert not workspace.root.exists()


def test_a_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Workspace("~/w").root == tmp_path / "w"


def test_creating_twice_keeps_what_is_there(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "w")
    workspace.create()
    (workspace.parts / "file").write_text("x")
    workspace.create()
    assert (workspace.parts / "file").read_text() == "x"
    assert workspace.writer_database.parent.is_dir()


def test_a_file_in_the_way_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "w").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot be created.*Set `workspace` to a folder"):
        Workspace(tmp_path / "w").create()


def test_the_lock_is_refused_in_the_same_process_and_free_after(workspace: Workspace) -> None:
    with workspace.lock(), pytest.raises(WorkspaceBusyError), workspace.lock():
        pass
    with workspace.lock():
        pass


def test_the_lock_is_free_after_an_error(workspace: Workspace) -> None:
    with pytest.raises(KeyError), workspace.lock():
        raise KeyError
    with workspace.lock():
        pass


def test_a_copy_without_a_store_cannot_be_locked_and_the_remedy_is_told(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    with pytest.raises(StoreError, match=r"has no folder `store`.*`heal store rebuild`"), Workspace(tmp_path).lock():
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_a_lock_that_cannot_be_written_is_an_error_with_the_remedy(workspace: Workspace) -> None:
    (workspace.root / "store" / "lock").mkdir()  # root may write to a read-only file; EROFS takes the same way
    with pytest.raises(StoreError, match=r"lock cannot be locked: .*to a disk that can be written"), workspace.lock():
        pass


def test_a_second_process_is_refused_and_a_kill_frees_the_lock(workspace: Workspace) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(workspace.root)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        said = f"in use by process {holder.pid}. Wait for it, stop it, or set"
        with pytest.raises(WorkspaceBusyError, match=said), workspace.lock():
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with workspace.lock():  # nothing has to be cleaned up
        pass


def test_a_workspace_that_was_never_locked_has_no_holder_and_is_not_touched(tmp_path: Path) -> None:
    assert Workspace(tmp_path / "nowhere").holder() is None
    workspace = Workspace(tmp_path / "w")
    workspace.create()
    assert workspace.holder() is None
    assert not workspace.lock_file.exists()


def test_the_holder_is_known_while_the_lock_is_held(workspace: Workspace) -> None:
    with workspace.lock():
        assert workspace.holder() == os.getpid()
    assert workspace.holder() is None  # though the file still names it
    assert workspace.lock_file.read_text() == f"{os.getpid()}\n"


def test_the_holder_is_another_process_until_that_is_killed(workspace: Workspace) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(workspace.root)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        assert workspace.holder() == holder.pid
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert workspace.holder() is None


def test_a_holder_that_could_not_say_which_it_is_is_still_one(workspace: Workspace) -> None:
    with workspace.lock():
        os.truncate(workspace.lock_file, 0)  # as on a full disk
        assert workspace.holder() == 0


def test_two_that_look_at_the_lock_do_not_take_each_other_for_a_holder(workspace: Workspace) -> None:
    with workspace.lock():
        pass
    with workspace.lock_file.open() as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH)
        assert workspace.holder() is None


def test_a_look_at_the_lock_does_not_make_a_run_fail(workspace: Workspace) -> None:
    with workspace.lock():
        pass
    looking = threading.Event()

    def look() -> None:
        with workspace.lock_file.open() as looked_at:
            fcntl.flock(looked_at, fcntl.LOCK_SH)
            looking.set()
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    assert looking.wait(10)
    with workspace.lock():
        pass
    thread.join()
