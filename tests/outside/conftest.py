"""One story, played by real Celery on a real Redis, once with the stock exporter and once with our recorder."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from outside.servers import Shop, redis_server
from outside.story import Played, play

from fencepost_recorder import begin


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture(scope="session")
def stories(redis_address: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Played]:
    """Both tellings. They are played side by side because most of a story is waiting: Celery looks for lost
    processes every five seconds."""
    directory = tmp_path_factory.mktemp("stories")
    (directory / "exported").mkdir()
    shops = (
        Shop(f"{redis_address}/0", directory / "exported", "export", directory / "exported.log"),
        Shop(f"{redis_address}/1", begin(directory, "celery") / "wal", "recorder", directory / "recorded.log"),
    )
    with ThreadPoolExecutor() as threads:
        exported, recorded = threads.map(play, shops)
    return exported, recorded


@pytest.fixture(scope="session")
def exported(stories: tuple[Played, Played]) -> Played:
    """The story as the stock OTLP/JSON file exporter tells it."""
    return stories[0]


@pytest.fixture(scope="session")
def recorded(stories: tuple[Played, Played]) -> Played:
    """The story as fencepost's recorder tells it, inside the same processes."""
    return stories[1]
