"""The sweeps: a crash at every operation of a recording's life, then at every operation of its recovery."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from campaigns import oracle
from campaigns.children import Change, Cut, Traced, run
from campaigns.ledger import Fact, facts
from campaigns.operations import Operation
from campaigns.oracle import Finding
from campaigns.works import Work, recovered
from campaigns.worlds import Killed


@dataclass
class Tally:
    """What a sweep did and found: crashes, second crashes, and how many different folders they left."""

    operations: int = 0
    cuts: int = 0
    doubles: int = 0
    findings: list[tuple[str, Finding]] = field(default_factory=list)

    def figures(self) -> dict[str, int]:
        """In how many rounds something was wrong: the numbers that must be zero."""
        names = ("lost", "doubled", "wrong", "failed")
        return {name: sum(1 for _, found in self.findings if getattr(found, name)) for name in names}

    def words(self, limit: int = 5) -> list[str]:
        """The first findings, in words."""
        return [f"{name}: {word}" for name, found in self.findings for word in found.words()][:limit]


class Sweep:
    """One work, cut everywhere in one world. `share` of all crashes, and `pairs` of all pairs of them, are tried.

    `change` breaks the code of every child first: then it is to find something.
    """

    def __init__(
        self,
        work: Work,
        world: Killed,
        *,
        share: float = 1.0,
        pairs: float = 1.0,
        seed: int = 0,
        change: Change | None = None,
    ) -> None:
        self.work, self.world, self.tally = work, world, Tally()
        self._draw = random.Random(seed)
        self._share, self._pairs = share, pairs
        self._change = change
        self._judged: set[bytes] = set()

    def run(self, folder: Path, *, at_first: bool = False) -> Tally:
        """Sweep, with scratch space in `folder`; `at_first` ends it with the first finding."""
        self._ledger, self._saved, self._before = (folder / name for name in ("ledger", "saved", "before"))
        folder.mkdir(parents=True, exist_ok=True)
        for _ in self._rounds():
            if at_first and self.tally.findings:
                break
        return self.tally

    def _rounds(self) -> Iterator[None]:
        """One crash each."""
        self._prepare()
        whole = self._live(Traced())
        self.tally.operations = len(whole)
        yield from self._after("cut once it was done")
        for operation in whole:
            for moment in self.world.moments:
                if (moment == "half" and not operation.data) or self._draw.random() >= self._share:
                    continue
                self._live(Cut(operation.number, moment, self.world.end))
                self.tally.cuts += 1
                yield from self._after(f"cut {moment} {_name(operation)}")
                yield

    def _prepare(self) -> None:
        self.world.clear()
        self._ledger.unlink(missing_ok=True)
        outcome = run(self.work.prepared(self.world.root, self._ledger), self.world.root, Traced())
        assert not outcome.failed, outcome.failed
        self.world.save(self._before)
        self._known = self._ledger.read_bytes() if self._ledger.exists() else b""

    def _live(self, plan: Cut | Traced) -> list[Operation]:
        """One life, up to its cut."""
        self.world.restore(self._before)
        self._ledger.write_bytes(self._known)
        outcome = run(self.work.action(self.world.root, self._ledger), self.world.root, plan, self._change)
        if outcome.failed:
            self.tally.findings.append(("not cut", Finding(failed=[outcome.failed])))
        self.world.settle()
        return outcome.operations

    def _after(self, name: str) -> Iterator[None]:
        """Recover what a crash left; where it is new, also with a second crash at every operation."""
        known = list(facts(self._ledger))
        if digest(self.world.root, known) in self._judged:
            return
        self.world.save(self._saved)
        for operation in self._judge(name, known):
            for moment in self.world.moments[-2:] if operation.data else ("after",):
                if self._draw.random() >= self._pairs:
                    continue
                self.world.restore(self._saved)
                cut = Cut(operation.number, moment, self.world.end)
                run(recovered(self.world.root), self.world.root, cut, self._change)
                self.world.settle()
                self.tally.doubles += 1
                self._judge(f"{name}, then {moment} {_name(operation)}", known)
                yield

    def _judge(self, name: str, known: list[Fact]) -> list[Operation]:
        """Recover, and hold what is there against the ledger; the operations of the recovery if it was new."""
        key = digest(self.world.root, known)
        if key in self._judged:
            return []
        self._judged.add(key)
        outcome = run(recovered(self.world.root), self.world.root, Traced(), self._change)
        torn = self.world.power or "half" in name
        gaps = oracle.ALWAYS | (oracle.TORN if torn else frozenset())
        owed = known if self.work.pledged or not self.world.power else oracle.owed(known)
        finding = oracle.judge(outcome, known, owed, gaps=gaps)
        if finding:
            self.tally.findings.append((name, finding))
        return outcome.operations


def _name(operation: Operation) -> str:
    return f"{operation.kind} {operation.path} (operation {operation.number})"


def digest(root: Path, known: list[Fact]) -> bytes:
    """Of everything below the root, and of what was acknowledged."""
    made = hashlib.blake2b(repr([(one.kind, one.first, one.count) for one in known]).encode())
    for path in sorted(root.rglob("*")):
        made.update(repr((str(path.relative_to(root)), path.is_dir())).encode())
        if not path.is_dir():
            made.update(hashlib.blake2b(path.read_bytes()).digest())
    return made.digest()
