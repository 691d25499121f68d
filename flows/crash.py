"""Telling that the process of a scheduled run was lost, which the run itself no longer can.

Imports no Prefect: a worker calls it through a hook of the flow (`nightly`), and where the
worker died too, whoever finds the run (`deployments.recovery`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heal_core.config import load_config
from heal_core.errors import ConfigError
from heal_core.notify import Notification, send
from heal_core.store.workspace import Workspace


def tell_of_crash(flow_run_id: str, name: str, parameters: Mapping[str, Any], why: str) -> None:
    """Notify whom the run's config names; without a config that can be read, nobody is known.

    Args:
        flow_run_id: Prefect's id of the run.
        name: Its name, for people.
        parameters: Those of its flow: `config` and `overrides`.
        why: How it was lost.
    """
    try:
        config = load_config(str(parameters.get("config")), parameters.get("overrides") or [])
    except ConfigError:
        return
    title = (
        f"HEAL {name} crashed: {why.rstrip('.')}. What is finished is stored, and the next start goes on from there."
    )
    detail = {"flow_run": flow_run_id}
    send(config.notify, Notification("crashed", None, str(Workspace(config.workspace).root), title, detail))
