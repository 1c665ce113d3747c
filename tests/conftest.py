"""What every test shares: settings that make a run repeatable, and a bare environment."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest
from postgres_server import postgres_server

# `make test` draws the same examples on every machine, so that a red run is red for everybody; a campaign
# looks further each time and prints the example that failed.
hypothesis.settings.register_profile("test", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.register_profile("campaign", deadline=None, max_examples=2_000, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    campaign = config.getoption("markexpr") == "campaign"
    hypothesis.settings.load_profile("campaign" if campaign else "test")
    # A shell has what it starts in the background ignore Ctrl-C, and so would all that the tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the caller's environment decides what a test records, or where."""
    for name in list(os.environ):
        if name.startswith(("OTEL_", "FENCEPOST_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The connection string of a real PostgreSQL, started for whoever asks for it first."""
    with postgres_server() as address:
        yield address
