"""What many schedules came to: how many, which invariants break in them, and by which kinds of faults."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fencepost_analyzer.lab.space import fault_of, plain
from fencepost_runtime.scenario import Fault


class Shortest(NamedTuple):
    faults: int
    base: int
    added: tuple[Fault, ...]

    @property
    def rank(self) -> tuple[int, int, str]:
        """Ties go by the faults' own order, so that nothing depends on which unit ended first."""
        return self.faults, self.base, str(self.added)


class Way(NamedTuple):
    """How an invariant breaks: in schedules with faults of exactly these kinds, in the order of their names."""

    invariant: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Broken:
    """`schedules` break an invariant in one way; `shortest` is the one with fewest faults."""

    schedules: int
    shortest: Shortest

    def __add__(self, other: Broken) -> Broken:
        shortest = min(self.shortest, other.shortest, key=lambda one: one.rank)
        return Broken(self.schedules + other.schedules, shortest)


@dataclass(slots=True)
class Found:
    """What became of some schedules. `equivalent`: those that were not judged, since another stands for the same
    history. `left_out_by_lineage`: those with one fault more that lineage did not try; what would have followed from
    these is in no count. `broken`: those in which anything is violated; `ways`: by which kinds of faults each invariant
    breaks; `undecided`: by invariant."""

    schedules: int = 0
    equivalent: int = 0
    left_out_by_lineage: int = 0
    events: int = 0
    overdue: int = 0
    broken: int = 0
    undecided: Counter[str] = field(default_factory=Counter)
    ways: dict[Way, Broken] = field(default_factory=dict)

    @property
    def violated(self) -> Counter[str]:
        """How many schedules break each invariant."""
        found = Counter[str]()
        for way, broken in self.ways.items():
            found[way.invariant] += broken.schedules
        return found

    @property
    def shortest(self) -> dict[str, Shortest]:
        """For each violated invariant how many faults the schedule has that has fewest, which of them were added, and
        to which base."""
        found: dict[str, Broken] = {}
        for way, broken in self.ways.items():
            found[way.invariant] = found[way.invariant] + broken if way.invariant in found else broken
        return {name: broken.shortest for name, broken in found.items()}

    def add(self, other: Found) -> None:
        self.schedules += other.schedules
        self.equivalent += other.equivalent
        self.left_out_by_lineage += other.left_out_by_lineage
        self.events += other.events
        self.overdue += other.overdue
        self.broken += other.broken
        self.undecided += other.undecided
        for way, broken in other.ways.items():
            self.keep(way, broken)

    def keep(self, way: Way, broken: Broken) -> None:
        self.ways[way] = self.ways[way] + broken if way in self.ways else broken

    def to_dict(self) -> dict[str, Any]:
        return {
            "schedules": self.schedules,
            "equivalent": self.equivalent,
            "left_out_by_lineage": self.left_out_by_lineage,
            "events": self.events,
            "overdue": self.overdue,
            "broken": self.broken,
            "violated": dict(sorted(self.violated.items())),
            "undecided": dict(sorted(self.undecided.items())),
            "ways": [
                {
                    "invariant": way.invariant,
                    "kinds": list(way.kinds),
                    "schedules": broken.schedules,
                    "faults": broken.shortest.faults,
                    "base": broken.shortest.base,
                    "added": [plain(fault) for fault in broken.shortest.added],
                }
                for way, broken in sorted(self.ways.items())
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Found:
        """What `to_dict` gave. Raises KeyError, TypeError, ValueError or AttributeError for anything else."""
        return cls(
            schedules=int(data["schedules"]),
            equivalent=int(data["equivalent"]),
            left_out_by_lineage=int(data["left_out_by_lineage"]),
            events=int(data["events"]),
            overdue=int(data["overdue"]),
            broken=int(data["broken"]),
            undecided=Counter({str(name): int(number) for name, number in data["undecided"].items()}),
            ways={
                Way(str(one["invariant"]), tuple(map(str, one["kinds"]))): Broken(
                    int(one["schedules"]),
                    Shortest(int(one["faults"]), int(one["base"]), tuple(map(fault_of, one["added"]))),
                )
                for one in data["ways"]
            },
        )
