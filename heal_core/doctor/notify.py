"""Whether someone would be told how a night ended; nothing is sent."""

from __future__ import annotations

import os
import shutil

from heal_core.doctor.finding import Finding
from heal_core.notify import NotifyConfig


def check_notify(config: NotifyConfig) -> Finding:
    """Look for the webhook's variable and the command's program, in the environment that this runs in."""
    faults, remedies = [], []
    if config.webhook_env is not None and not os.environ.get(config.webhook_env):
        faults.append(f"notify.webhook_env names {config.webhook_env}, which is not set in this shell")
        remedies.append("set it where runs start, such as in the shell of make deploy-local")
    if config.command is not None and shutil.which(config.command[0]) is None:
        faults.append(f"notify.command: there is no program {config.command[0]}")
        remedies.append("give its path, or put it on PATH")
    if faults:
        return Finding("notify", "warn", "; ".join(faults), "; ".join(remedies))
    ways = [name for name, way in (("a webhook", config.webhook_env), ("a command", config.command)) if way]
    told = f"{' and '.join(ways)} told of {', '.join(config.events)}" if ways else "nobody is told how a run ended"
    return Finding("notify", "ok", told)
