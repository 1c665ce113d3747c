"""Every backend that the suite holds to the same behaviour: a new one adds one entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from runtime.support import Desk

from fencepost_runtime.backends import own_database
from fencepost_runtime.memory import MemoryBackend
from fencepost_runtime.operations import Backend

BACKENDS = ("memory", "sqlite", "postgres")
# Opens a new, empty backend in a folder that is this one's alone.
Opens = Callable[[Path], AbstractContextManager[Backend]]


def opens(name: str, request: pytest.FixtureRequest) -> Opens:
    """What opens backends of this name; a server is started only for those that need it."""
    address: str | None = request.getfixturevalue("postgres") if name == "postgres" else None
    return lambda folder: closing(MemoryBackend()) if name == "memory" else _on_disk(folder, address)


@contextmanager
def _on_disk(folder: Path, postgres: str | None) -> Iterator[Backend]:
    with own_database(folder, postgres) as database, closing(database.open()) as backend:
        yield backend


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with opens(request.param, request)(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="session", params=[name for name in BACKENDS if name != "memory"])
def other(request: pytest.FixtureRequest) -> Opens:
    """What opens a backend that is held to the model in memory."""
    return opens(request.param, request)


@pytest.fixture
def desk(backend: Backend) -> Desk:
    return Desk(backend)
