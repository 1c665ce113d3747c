"""Every backend that the suite holds to the same behaviour: a new one adds one entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runtime.support import Desk

from fencepost_runtime.memory import MemoryBackend
from fencepost_runtime.operations import Backend
from fencepost_runtime.sqlite import SqliteBackend

BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "memory": lambda _: MemoryBackend(),
    "sqlite": lambda directory: SqliteBackend(directory / "queue.sqlite"),
}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    made = BACKENDS[request.param](tmp_path)
    yield made
    made.close()


@pytest.fixture
def desk(backend: Backend) -> Desk:
    return Desk(backend)
