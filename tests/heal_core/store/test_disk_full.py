import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("disk_full_child.py")
IN_A_SMALL_DISK = ["unshare", "--mount", "--map-root-user", "sh", "-c"]


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [19, 20, 22])
def test_a_full_disk_is_told_and_what_was_acknowledged_is_there_when_some_is_freed(
    tmp_path: Path, megabytes: int
) -> None:
    # other sizes fill up at other steps: a part, the database's log, its checkpoint, the published copy
    mount = f"mount -t tmpfs -o size={megabytes}m none {tmp_path}"
    if subprocess.run([*IN_A_SMALL_DISK, mount], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    done = subprocess.run(
        [*IN_A_SMALL_DISK, f'{mount} && exec "$0" "$@"', sys.executable, str(CHILD), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["stored"] > 3
    assert (told["lost"], told["findings"]) == ([], [])
    for said in told["said"]:
        assert "disk is full" in said
        assert "run the same command again" in said
