"""The few requests to a Prefect server that looking after runs needs, by its REST API.

Prefect's own client is not used: it waits minutes for a server that is away, and must be
told of the server before it is imported. What does not belong here: when to ask, and what
follows from an answer.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

import httpx

_MAX_TRIES = 10

FlowRun = dict[str, Any]
"""A flow run as the API tells it: `id`, `name`, `state`, `deployment_id`, `infrastructure_pid`, ..."""


class PrefectApi:
    """A connection to the server at `url`, such as http://127.0.0.1:4200/api.

    Its methods raise `httpx.HTTPError` when the server is away or refuses.
    """

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)  # a proxy cannot reach loopback

    def __enter__(self) -> PrefectApi:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def is_healthy(self) -> bool:
        """Return whether a server answers."""
        try:
            return self._client.get("/health", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def ensure_pool(self, name: str) -> None:
        """Create the work pool of type process unless it exists."""
        self._ensure("/work_pools/", {"name": name, "type": "process"})

    def ensure_limit(self, name: str, slots: int) -> None:
        """Create the global concurrency limit unless it exists; a changed number of slots is left as it is."""
        self._ensure("/v2/concurrency_limits/", {"name": name, "limit": slots})

    def read_deployments(self) -> list[dict[str, Any]]:
        """Return all deployments, with the name of their flow as `flow_name`."""
        flows = {flow["id"]: flow["name"] for flow in self._post("/flows/filter", {})}
        deployments = self._post("/deployments/filter", {"sort": "NAME_ASC"})
        return [{**deployment, "flow_name": flows[deployment["flow_id"]]} for deployment in deployments]

    def read_runs(self, *states: str, limit: int = 200) -> list[FlowRun]:
        """Return the flow runs of deployments in one of the state types, the latest first."""
        condition = {"state": {"type": {"any_": list(states)}}, "deployment_id": {"is_null_": False}}
        body = {"flow_runs": condition, "sort": "EXPECTED_START_TIME_DESC", "limit": limit}
        runs: list[FlowRun] = self._post("/flow_runs/filter", body)
        return runs

    def read_next_run(self, deployment_id: str) -> FlowRun | None:
        """Return the next flow run that the deployment's schedule has made, if there is one."""
        condition = {"state": {"name": {"any_": ["Scheduled"]}}, "deployment_id": {"any_": [deployment_id]}}
        body = {"flow_runs": condition, "sort": "NEXT_SCHEDULED_START_TIME_ASC", "limit": 1}
        return next(iter(self._post("/flow_runs/filter", body)), None)

    def read_history(self, run_id: str) -> list[dict[str, Any]]:
        """Return the states that a flow run was in, the first one first."""
        states = self._send("GET", "/flow_run_states/", params={"flow_run_id": run_id}).raise_for_status().json()
        return sorted(states, key=lambda state: str(state["timestamp"]))

    def set_state(self, run_id: str, kind: str, name: str, message: str, in_seconds: float | None = None) -> None:
        """Put a flow run into a state; `in_seconds` says when a scheduled one is to start."""
        state: dict[str, Any] = {"type": kind, "name": name, "message": message}
        if in_seconds is not None:
            starts_at = datetime.now(UTC) + timedelta(seconds=in_seconds)
            state["state_details"] = {"scheduled_time": starts_at.isoformat()}
        self._post(f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def _ensure(self, path: str, body: dict[str, Any]) -> None:
        found = self._send("GET", path + body["name"])
        if found.status_code == httpx.codes.NOT_FOUND:
            self._post(path, body)
        else:
            found.raise_for_status()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._send("POST", path, json=body).raise_for_status().json()

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        """Return the answer; a server whose database is busy for too long says 503, and is asked again."""
        for _ in range(_MAX_TRIES - 1):
            response = self._client.request(method, path, **content)
            if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return response
            time.sleep(1)
        return self._client.request(method, path, **content)
