"""What a recording holds, before anybody judges it: who recorded, for how long, what is missing."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fencepost_analyzer.database import resource

if TYPE_CHECKING:
    import duckdb

    from fencepost_recorder import Recording

MAX_GAPS = 20


@dataclass(frozen=True, slots=True)
class Announced:
    """The scenario that a run of the reference runtime says it is of; `policies` maps queue to policy name."""

    scenario: str
    seed: int | None
    policies: dict[str, str]


@dataclass(frozen=True, slots=True)
class Overview:
    """`began_unix_nano` and `lasted_ns` span all recorded spans (None when there are none); `unfinished` counts the
    spans that never ended; `gaps` are the first of them, as rows of the gaps table. All texts are raw."""

    recording: str
    created: datetime
    tool_version: str
    commit: str | None
    spans: int
    unfinished: int
    duplicates: int
    began_unix_nano: int | None
    lasted_ns: int | None
    producers: list[dict[str, Any]]
    gap_count: int
    gaps: list[dict[str, Any]]
    events: dict[str, int]
    jobs: int
    scopes: list[str]
    unmapped: list[str]
    announced: Announced | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def overview(
    recording: Recording, connection: duckdb.DuckDBPyConnection, unmapped: tuple[str, ...], *, most_gaps: int = MAX_GAPS
) -> Overview:
    """Reads the recording's manifest and, in `connection`, its spans and events."""
    manifest = recording.manifest
    facts = _row(connection, resource("stories/facts.sql"))
    events = connection.execute("SELECT event, count(*) FROM events GROUP BY event ORDER BY count(*) DESC, event")
    gaps = recording.gaps()
    return Overview(
        recording=recording.id,
        created=datetime.fromtimestamp(manifest.created_unix_nano / 1e9, UTC),
        tool_version=manifest.tool_version,
        commit=manifest.commit,
        spans=manifest.spans,
        unfinished=facts["unfinished"],
        duplicates=manifest.duplicates,
        began_unix_nano=facts["began"],
        lasted_ns=facts["lasted"],
        producers=[asdict(producer) for producer in manifest.producers],
        gap_count=gaps.num_rows,
        gaps=gaps.slice(0, most_gaps).to_pylist(),
        events={str(event): count for event, count in events.fetchall()},
        jobs=facts["jobs"],
        scopes=list(facts["scopes"]),
        unmapped=list(unmapped),
        announced=_announced(facts["announced"], manifest.seed),
    )


def _row(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description or ()]
    return dict(zip(names, cursor.fetchone() or (), strict=True))


def _announced(attributes: str | None, seed: int | None) -> Announced | None:
    """None unless the attributes of the run's own span are of the shape that the runtime gives them."""
    try:
        values = json.loads(attributes or "")
        scenario = json.loads(values["job.scenario"])
        policies = {str(queue["name"]): str(queue["policy"]["name"]) for queue in scenario["queues"]}
        stated = values.get("job.scenario.seed")
        return Announced(str(scenario["id"]), stated if isinstance(stated, int) else seed, policies)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
