"""One story, played by real Celery on a real Redis, once with the stock exporter and once with our recorder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from outside.servers import Shop, redis_server

FIRST = ("mail", "flaky", "broken", "unregistered", "charge")


@dataclass(frozen=True)
class Played:
    """What happened: `ids` maps a task's name to its job's id; `spans` is where the spans were written."""

    ids: dict[str, str]
    spans: Path


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as address:
        yield address


def play(shop: Shop) -> Played:
    """Run the story to its end.

    mail succeeds, flaky is retried once, broken fails, unregistered is known to no worker. charge is acknowledged
    before it runs and its process is killed, so it never ends. thumbnail is acknowledged late, its process is killed,
    and it runs again. report outlasts the visibility timeout: a second worker runs it beside the first.
    """
    shop.spans.mkdir()
    ids = dict(zip(FIRST, shop.publish(*FIRST), strict=True))
    with shop.worker("first"):
        os.kill(shop.told("charging").pid, signal.SIGKILL)
        assert {shop.told("done").id for _ in range(3)} == {ids[name] for name in ("mail", "flaky", "broken")}
        (ids["thumbnail"],) = shop.publish("thumbnail")
        os.kill(shop.told("drawing").pid, signal.SIGKILL)
        assert shop.told("drawing").times == 2
        assert shop.told("done").id == ids["thumbnail"]
        (ids["report"],) = shop.publish("report")
        assert shop.told("reporting").times == 1
        shop.await_visibility_timeout()
        with shop.worker("second"):
            assert shop.told("reporting").times == 2
            for _ in range(2):
                shop.tell("report seen twice")
            assert [shop.told("done").id for _ in range(2)] == [ids["report"]] * 2
    return Played(ids, shop.spans)


@pytest.fixture(scope="session")
def stories(redis_address: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Played]:
    """Both tellings. They are played side by side because most of a story is waiting: Celery looks for lost
    processes every five seconds."""
    shops = [
        Shop(f"{redis_address}/{number}", tmp_path_factory.mktemp(tracing), tracing)
        for number, tracing in enumerate(("export", "recorder"))
    ]
    with ThreadPoolExecutor() as threads:
        return dict(zip((shop.tracing for shop in shops), threads.map(play, shops), strict=True))


@pytest.fixture(scope="session")
def exported(stories: dict[str, Played]) -> Played:
    """The story as the stock OTLP/JSON file exporter tells it."""
    return stories["export"]


@pytest.fixture(scope="session")
def recorded(stories: dict[str, Played]) -> Played:
    """The story as fencepost's recorder tells it, inside the same processes."""
    return stories["recorder"]
