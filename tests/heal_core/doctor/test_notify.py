from __future__ import annotations

import pytest

from heal_core.doctor.notify import check_notify
from heal_core.notify import NotifyConfig


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUR_WEBHOOK", raising=False)


def test_who_is_told_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_notify(NotifyConfig()).found == "nobody is told how a run ended"
    monkeypatch.setenv("OUR_WEBHOOK", "http://127.0.0.1/secret")
    finding = check_notify(NotifyConfig(webhook_env="OUR_WEBHOOK", command=["sh", "-c", "cat"], events=["failed"]))
    assert (finding.state, finding.found) == ("ok", "a webhook and a command told of failed")


def test_a_variable_that_is_not_set_and_a_program_that_is_not_there_are_found() -> None:
    finding = check_notify(NotifyConfig(webhook_env="OUR_WEBHOOK", command=["/no/such/program"]))
    assert finding.state == "warn"
    assert "OUR_WEBHOOK, which is not set" in finding.found and "no program /no/such/program" in finding.found
    assert "make deploy-local" in finding.remedy
