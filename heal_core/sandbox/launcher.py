"""What runs in the sandbox before the command: gives up the user id, sets limits, says that it got so far.

Its source is run by the sandbox's Python, where there is no heal_core: only the standard library.
Arguments: a JSON object, and the command.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys


def main() -> None:
    """Replace this process by the command."""
    settings = json.loads(sys.argv[1])
    os.chdir(settings["folder"])
    if settings["user_id"]:
        os.setgroups([])
        os.setresgid(*[settings["user_id"]] * 3)
        os.setresuid(*[settings["user_id"]] * 3)  # which gives up all capabilities too
    for name, limit in settings["limits"].items():
        kind = getattr(resource, name)
        ceiling = resource.getrlimit(kind)[1]
        soft, hard = (min(value, ceiling) if ceiling >= 0 else value for value in limit)  # -1 is no limit
        resource.setrlimit(kind, (soft, hard))
    # bubblewrap's first process dies with its parent from some moment on: who lost it before that must not go on
    os.write(settings["started_fd"], b"1")
    if not os.read(settings["go_fd"], 1):
        sys.exit("whoever started this is gone")
    ends = sorted([2, *settings["kept_fds"], resource.getrlimit(resource.RLIMIT_NOFILE)[0]])
    for before, after in itertools.pairwise(ends):  # bubblewrap leaves some of its own open
        os.closerange(before + 1, after)
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
