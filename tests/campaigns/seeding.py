"""Are the campaigns blind? Each is run against bugs that were put into the code, and has to find every one."""

from __future__ import annotations

from collections.abc import Iterator

from campaigns import worlds
from campaigns.bugs import BUGS, Bug
from campaigns.everywhere import POWER, sweep
from campaigns.scale import Figure, figure, scale
from campaigns.works import TAKE, WORKS

_WORKS = {work.name: work for work in (*WORKS, TAKE)}


def seeded() -> Iterator[Figure]:
    """Of each bug: which campaign noticed it over which work, and after how many crashes."""
    if not worlds.why_not("ext4"):
        worlds.alone()
    missed = []
    sample = BUGS if scale() >= 0.1 else BUGS[:3]
    for bug in sample:
        found = [one for kind, work in bug.noticed if (one := _notice(bug, kind, work)) is not None]
        if any(one["after"] is None for one in found) or not found:
            missed.append(bug.name)
        yield figure(f"seeded bug: {bug.name}", bool(found), "noticed", by=found)
    yield figure("seeded bugs noticed", len(sample) - len(missed), "bugs", missed=len(missed), which=missed)


def _notice(bug: Bug, kind: str, work: str) -> Figure | None:
    if kind in POWER and worlds.why_not(POWER[kind][0]):
        return None
    tally = sweep(kind, _WORKS[work], share=1.0, pairs=bug.pairs, change=bug.put_in)
    rounds = tally.cuts + tally.doubles
    return {"campaign": kind, "work": work, "after": rounds if tally.findings else None, "words": tally.words(1)}
