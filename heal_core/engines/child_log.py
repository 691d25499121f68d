"""What a child process says, kept in a file, and the end of it for error messages.

What does not belong here: the child (`hf`, `vllm.server`).
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

_TAIL_BYTES = 2000


class ChildLog:
    """An open log file.

    Args:
        path: Gets the output, behind what it has; a temporary file by default.
    """

    def __init__(self, path: Path | None) -> None:
        # held for as long as the child, and closed by `close`
        self.file: IO[bytes] = path.open("ab+") if path else tempfile.TemporaryFile()  # noqa: SIM115
        self._start = os.fstat(self.file.fileno()).st_size

    def tail(self) -> str:
        """Return the end of what was said since this log was opened."""
        size = os.fstat(self.file.fileno()).st_size
        start = max(self._start, size - _TAIL_BYTES)
        return os.pread(self.file.fileno(), size - start, start).decode(errors="replace")

    def close(self) -> None:
        self.file.close()
