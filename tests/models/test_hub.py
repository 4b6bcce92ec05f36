"""The hub out of reach: one probe, and no waiting for any file after it."""

from __future__ import annotations

import huggingface_hub
import pytest
from huggingface_hub import constants

from ragaf_exp.core import hub


@pytest.fixture
def probes(monkeypatch):
    """Calls of the hub's client; each fails as without a network."""
    made = []

    class Session:
        def head(self, *arguments, **settings):
            made.append((arguments, settings))
            raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.reachable.cache_clear()
    yield made
    hub.reachable.cache_clear()


def test_one_probe_for_any_number_of_files(probes):
    for _ in range(4):
        with hub.offline_if_unreachable():
            assert constants.HF_HUB_OFFLINE
        assert not constants.HF_HUB_OFFLINE
    ((_, settings),) = probes
    assert settings["timeout"] == hub.PROBE_S


def test_no_probe_where_the_user_says_offline(probes, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.reachable() and not probes


def test_a_reachable_hub_is_used(probes, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_session", lambda: type("Session", (), {"head": lambda *_, **__: None})())
    with hub.offline_if_unreachable():
        assert not constants.HF_HUB_OFFLINE
