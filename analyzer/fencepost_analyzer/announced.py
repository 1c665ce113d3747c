"""Which scenario a recording says it is of: the one place that reads it, whoever asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, count, takewhile
from typing import Any

import duckdb

from fencepost_analyzer.database import resource
from fencepost_analyzer.errors import NotReplayable
from fencepost_runtime.errors import RuntimeFault
from fencepost_runtime.scenario import Scenario

SCOPE = "fencepost.runtime"
"""The instrumentation scope of the reference runtime's spans."""


@dataclass(frozen=True, slots=True)
class Announced:
    """The workload, the policies and the seed of a run of the reference runtime, as it states them itself."""

    scenario: Scenario
    seed: int

    @property
    def policies(self) -> dict[str, str]:
        """Queue → the name of its policy."""
        return {queue.name: queue.policy.name for queue in self.scenario.queues}


def announced(connection: duckdb.DuckDBPyConnection, recording_id: str) -> Announced:
    """What the run's own span states, read from the table `spans`.

    Raises NotReplayable when no span says it, several do (none can be believed then), or it cannot be read."""
    found = connection.execute(resource("stories/announced.sql"), {"scope": SCOPE}).fetchall()
    if len(found) != 1:
        raise NotReplayable(
            f"Recording {recording_id} does not say which scenario it is of: only runs of the reference runtime "
            "(`fencepost run`) can be replayed; write the incident as a scenario file, as "
            "docs/how-to/add-a-failure-mode.md shows, and run that."
        )
    try:
        attributes = json.loads(found[0][0])
        if "job.scenario" not in attributes:
            raise NotReplayable(
                f"Recording {recording_id} does not hold its scenario, which was perhaps too large for a span: record "
                "one of fewer jobs to replay it."
            )
        return Announced(Scenario.from_dict(json.loads(_text(attributes))), int(attributes["job.scenario.seed"]))
    except KeyError as error:
        raise NotReplayable(f"Recording {recording_id} states no {error.args[0]}, so it cannot be replayed.") from error
    except (ValueError, TypeError, RecursionError, RuntimeFault) as error:
        raise NotReplayable(f"Recording {recording_id} states a scenario that cannot be read: {error}") from error


def _text(attributes: Mapping[str, Any]) -> str:
    """The scenario's text; one that is too long for one attribute goes on in job.scenario.2 and so forth."""
    keys = chain(("job.scenario",), (f"job.scenario.{number}" for number in count(2)))
    return "".join(str(attributes[key]) for key in takewhile(attributes.__contains__, keys))
