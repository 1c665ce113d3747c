"""The story that real Celery plays: what goes right, what goes wrong, and who is killed."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outside.servers import Shop

from fencepost_analyzer.check import opened
from fencepost_recorder import Recording

FIRST = ("mail", "flaky", "broken", "unregistered", "charge")


@dataclass(frozen=True)
class Played:
    """What happened: `ids` maps a task's name to its job's id, `killed` to the process that was killed in it;
    `spans` is the directory they were written to."""

    ids: dict[str, str]
    killed: dict[str, int]
    spans: Path


def play(shop: Shop) -> Played:
    """Run the story to its end.

    mail succeeds, flaky is retried once, broken fails, unregistered is known to no worker. charge is acknowledged
    before it runs and its process is killed, so it never ends. thumbnail is acknowledged late, its process is killed,
    and it runs again. report outlasts the visibility timeout: a second worker runs it beside the first.
    """
    ids = dict(zip(FIRST, shop.publish(*FIRST), strict=True))
    with shop.worker("first"):
        killed = {"charge": shop.told("charging").pid}
        os.kill(killed["charge"], signal.SIGKILL)
        assert {shop.told("done").id for _ in range(3)} == {ids[name] for name in ("mail", "flaky", "broken")}
        (ids["thumbnail"],) = shop.publish("thumbnail")
        killed["thumbnail"] = shop.told("drawing").pid
        os.kill(killed["thumbnail"], signal.SIGKILL)
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
    return Played(ids, killed, shop.spans)


def events_of(recording: Recording, job_id: str) -> list[dict[str, Any]]:
    """The events of one job, in the order of their times."""
    return [row for row in all_events(recording) if row["job_id"] == job_id]


def all_events(recording: Recording) -> list[dict[str, Any]]:
    """Every event of a recording, in the order of their times."""
    with opened(recording) as (connection, _):
        rows = connection.sql('SELECT * FROM events ORDER BY "at", span_id').to_arrow_table()
    return list(rows.to_pylist())


def told(recording: Recording, job_id: str) -> list[tuple[str, str, str | None]]:
    """Event, outcome and reason of each event of one job, in the order of their times."""
    return [(row["event"], row["outcome"], row["reason"]) for row in events_of(recording, job_id)]
