"""What a recording holds, before anybody judges it: who recorded, for how long, what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fencepost_analyzer.announced import Announced
from fencepost_analyzer.database import resource, rows

if TYPE_CHECKING:
    from fencepost_analyzer.case import Case

MAX_GAPS = 20


@dataclass(frozen=True, slots=True)
class Overview:
    """`began_unix_nano` and `lasted_ns` span all recorded spans (None when there are none); `unfinished` counts the
    spans that never ended; `gaps` are the first of them, as rows of the gaps table; `endings` says of producers that
    `fencepost record` saw end how they did: "killed by SIGKILL", "exited with 0". All texts are raw."""

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
    endings: dict[str, str]
    gap_count: int
    gaps: list[dict[str, Any]]
    events: dict[str, int]
    jobs: int
    scopes: list[str]
    unmapped: list[str]
    announced: Announced | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; of the scenario only its name, seed and policies."""
        stated = self.announced
        told = stated and {"scenario": stated.scenario.id, "seed": stated.seed, "policies": stated.policies}
        return {**asdict(replace(self, announced=None)), "announced": told}


def overview(case: Case, *, most_gaps: int = MAX_GAPS) -> Overview:
    """Reads a case's manifest, spans and events."""
    manifest = case.recording.manifest
    (facts,) = rows(case.connection.execute(resource("stories/facts.sql")))
    seen = rows(case.connection.execute(resource("stories/endings.sql")))
    events = case.connection.execute("SELECT event, count(*) FROM events GROUP BY event ORDER BY count(*) DESC, event")
    gaps = case.recording.gaps()
    return Overview(
        recording=case.recording.id,
        created=datetime.fromtimestamp(manifest.created_unix_nano / 1e9, UTC),
        tool_version=manifest.tool_version,
        commit=manifest.commit,
        spans=manifest.spans,
        unfinished=facts["unfinished"],
        duplicates=manifest.duplicates,
        began_unix_nano=facts["began"],
        lasted_ns=facts["lasted"],
        producers=[asdict(producer) for producer in manifest.producers],
        endings={one["producer"]: _ending(one["killed"], one["how"]) for one in seen},
        gap_count=gaps.num_rows,
        gaps=gaps.slice(0, most_gaps).to_pylist(),
        events={str(event): count for event, count in events.fetchall()},
        jobs=facts["jobs"],
        scopes=list(facts["scopes"]),
        unmapped=list(case.unmapped),
        announced=case.announced,
    )


def _ending(killed: bool, how: str | None) -> str:
    if killed:
        return f"killed by {how or 'a signal'}"
    return "exited" if how is None else f"exited with {how}"
