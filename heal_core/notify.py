"""Telling someone how a run ended: a webhook, a command, or both.

A hook that fails is a warning in the log and never fails a run. The webhook's URL is a
secret: settings hold the name of an environment variable, and neither the URL nor what a
library says about it is ever logged. What does not belong here: what is worth telling.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException, InvalidURL
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

Event = Literal["completed", "failed", "stopped", "nothing_new", "crashed"]

BACKOFF_SECONDS = (1.0, 4.0)
"""Waits between the tries of the webhook: one try more than these."""
MAX_RETRY_AFTER_SECONDS = 30.0

logger = logging.getLogger("heal")


class NotifyConfig(BaseModel):
    """Who is told of what. Nothing is told by default."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    webhook_env: str | None = None
    """Name of the environment variable that holds the URL which is told, as JSON; never the URL."""
    command: list[str] | None = Field(default=None, min_length=1)
    """Program and arguments, without a shell, that is told, as JSON on its input."""
    events: list[Event] = ["completed", "failed", "crashed"]
    """What is told."""
    timeout_seconds: float = Field(default=10.0, gt=0)
    """Longest time for one try of the webhook, and for the command."""

    @field_validator("webhook_env")
    @classmethod
    def _check_it_is_a_name(cls, value: str | None) -> str | None:
        """Refuse a URL without repeating it: errors and logs are no place for a secret."""
        if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError(
                "notify.webhook_env must be the name of an environment variable that holds the URL, such as "
                "HEAL_WEBHOOK_URL; the URL itself is a secret and stays out of the config"
            )
        return value


@dataclass(frozen=True)
class Notification:
    """What happened, for a person and for a program.

    Attributes:
        event: One of `Event`.
        run_id: None where the run had no id yet.
        workspace: Path of the workspace.
        title: One line for a person.
        detail: More for a program, as JSON can hold it.
    """

    event: Event
    run_id: str | None
    workspace: str
    title: str
    detail: Mapping[str, Any] = field(default_factory=dict)

    def payload(self) -> dict[str, Any]:
        """Return the message; `text` is what Slack, Mattermost and their like show."""
        return {
            "text": self.title,
            "event": self.event,
            "run_id": self.run_id,
            "workspace": self.workspace,
            "title": self.title,
            "detail": dict(self.detail),
        }


def send(config: NotifyConfig, notification: Notification) -> None:
    """Tell it to the webhook and to the command, as far as the settings ask for it; never raises for either.

    A webhook that does not answer is tried again, and so may be told twice. This takes at
    most a few times `timeout_seconds`.
    """
    if notification.event not in config.events:
        return
    message = json.dumps(notification.payload(), default=str).encode()
    if config.webhook_env is not None:
        url = os.environ.get(config.webhook_env, "").strip()
        if url:
            _post_with_retries(url, message, config)
        else:
            logger.warning(
                "notification %r was not sent: notify.webhook_env names the environment variable %s, which is not set. "
                "Export it where the run starts (for scheduled runs: in the environment of Prefect's worker)",
                notification.event,
                config.webhook_env,
            )
    if config.command is not None:
        _run_command(config.command, config.timeout_seconds, message, notification)


# ---- webhook


@dataclass(frozen=True)
class _Fault:
    """Why a try failed, in words that hold nothing of the URL, and whether another may succeed."""

    words: str
    may_pass: bool
    retry_after_seconds: float = 0.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would become a GET without its body, and count as delivered."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post_with_retries(url: str, message: bytes, config: NotifyConfig) -> None:
    fault = None
    for wait in (*BACKOFF_SECONDS, None):
        fault = _post_within(config.timeout_seconds, url, message)
        if fault is None:
            return
        if not fault.may_pass or wait is None:
            break
        time.sleep(max(wait, min(fault.retry_after_seconds, MAX_RETRY_AFTER_SECONDS)))
    assert fault is not None
    logger.warning("the webhook of %s was not told: %s", config.webhook_env, fault.words)


def _post_within(timeout_seconds: float, url: str, message: bytes) -> _Fault | None:
    """Return why a POST failed, None when it was accepted.

    Timeouts of sockets start again with every byte, and looking up a host has none: a thread
    that can be left behind makes the limit hold.
    """
    faults: list[_Fault | None] = []
    thread = threading.Thread(
        target=lambda: faults.append(_post(timeout_seconds, url, message)), name="heal-notify", daemon=True
    )
    thread.start()
    thread.join(timeout_seconds)
    return faults[0] if faults else _no_answer(timeout_seconds)


def _post(timeout_seconds: float, url: str, message: bytes) -> _Fault | None:
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            return _Fault("its URL must begin with http:// or https://", may_pass=False)
        request = urllib.request.Request(
            url, message, {"Content-Type": "application/json", "User-Agent": "heal"}, method="POST"
        )
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_seconds):
            return None
    except urllib.error.HTTPError as error:
        error.close()
        may_pass = error.code == 429 or error.code >= 500
        return _Fault(f"it answered with status {error.code}", may_pass, _retry_after(error))
    except urllib.error.URLError as error:
        return _describe(error.reason, timeout_seconds)
    except (OSError, HTTPException, ValueError) as error:
        return _describe(error, timeout_seconds)


def _describe(reason: BaseException | str, timeout_seconds: float) -> _Fault:
    """Return the fault of an exception; its own text may hold the URL, or a part of it."""
    if isinstance(reason, TimeoutError):
        return _no_answer(timeout_seconds)
    if isinstance(reason, socket.gaierror):
        return _Fault("the name of its host could not be looked up", may_pass=True)
    if isinstance(reason, ssl.SSLError):
        return _Fault(f"TLS failed ({reason.reason or type(reason).__name__})", may_pass=False)
    if isinstance(reason, OSError):
        words = os.strerror(reason.errno) if reason.errno else type(reason).__name__
        return _Fault(f"the connection failed ({words})", may_pass=True)
    if isinstance(reason, HTTPException) and not isinstance(reason, InvalidURL):
        return _Fault(f"it answered with what is not HTTP ({type(reason).__name__})", may_pass=True)
    return _Fault("its URL cannot be used", may_pass=False)


def _no_answer(timeout_seconds: float) -> _Fault:
    return _Fault(f"no answer within {timeout_seconds:g} s", may_pass=True)


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Return the seconds that the receiver asks to wait for; 0 when it does not say."""
    with suppress(ValueError):
        return float(error.headers.get("Retry-After", "0"))
    return 0.0


# ---- command


def _run_command(command: list[str], timeout_seconds: float, message: bytes, notification: Notification) -> None:
    """Run the command with the message as its input; what it prints goes to standard error."""
    environment = {
        **os.environ,
        "HEAL_EVENT": notification.event,
        "HEAL_RUN": notification.run_id or "",
        "HEAL_WORKSPACE": notification.workspace,
    }
    name = command[0]  # its arguments may hold secrets
    try:
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=_standard_error(), start_new_session=True
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds a null character"
        logger.warning("the command of notify (%s) could not be started: %s", name, why)
        return
    try:
        child.communicate(message, timeout=timeout_seconds)
    except subprocess.TimeoutExpired:
        logger.warning("the command of notify (%s) was killed: it took longer than %g s", name, timeout_seconds)
        return
    finally:  # an interruption must not leave it behind either
        if child.poll() is None:
            _kill_group(child)
    if child.returncode:
        logger.warning("the command of notify (%s) ended with exit code %d", name, child.returncode)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill a command with its children: it leads a session, and so a process group, of its own."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _standard_error() -> int:
    """Return where a command may print: standard output may be read as the run's JSON."""
    try:
        return sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL
    except (OSError, ValueError):
        return subprocess.DEVNULL
