"""A generator of reasoning-gym as a source: entries by seed, with the reference that its scorer accepts.

They are made in a process of their own (`heal_core/gym/generate.py` says why), while they are read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from heal_core.children import child_environment, start_child
from heal_core.errors import InputError
from heal_core.sources.config import GymConfig
from heal_core.sources.row import Refusal, SourceRow


def read_gym(config: GymConfig, label: str) -> Iterator[SourceRow]:
    """Yield a row per entry; those after which nobody asks are not made, but for what a pipe holds.

    Raises:
        InputError: If the package is missing, or the generator or its settings cannot be meant, or it breaks off.
    """
    line = 0
    with start_child(
        [sys.executable, "-m", "heal_core.gym.generate", config.model_dump_json()],
        env=child_environment(PYTHONHASHSEED="0"),
        stdout=subprocess.PIPE,
    ) as process:
        try:
            for message in _messages(process):
                if "done" in message:
                    return
                if "error" in message:
                    raise InputError(message["error"])
                line += 1
                content = Refusal(message["refused"]) if "refused" in message else message["row"]
                yield SourceRow(label, line, f"reasoning-gym:{config.dataset}", content)
        finally:
            process.kill()
    raise InputError(
        f"the generator {label} broke off after {line} entries (exit code {process.returncode}); its message stands "
        "above. Expected reasoning-gym to make all of them: take a smaller size, or other settings."
    )


def _messages(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith(b"\n"):  # else it was killed while it wrote
            yield json.loads(line)
