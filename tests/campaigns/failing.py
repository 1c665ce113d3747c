"""The sweep of failures: each operation of a life once cut short, once out of space, once an error of the disk.

The process lives on, tells its user or its client, and goes on as well as it can. Then it is killed or the power goes
(as `model` has it: a failed sync leaves bytes that no later sync brings to the disk), and the recovery has to bring
back all that was acknowledged, and to count all that was not.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from campaigns import model, oracle
from campaigns.children import Outcome, Traced, run
from campaigns.ledger import Fact, facts
from campaigns.operations import Operation
from campaigns.oracle import Finding
from campaigns.sweep import digest
from campaigns.torn import ModelSweep
from campaigns.works import recovered

_SYNCS = ("sync", "datasync")
# A write that fails is told in a gap; what was cut off with it may show as a torn end.
_TOLD = oracle.ALWAYS | oracle.TORN | {"write_failed"}


class Fail(Traced):
    """Let one operation fail in one way, and everything else pass; keep what really happened."""

    def __init__(self, number: int, how: str) -> None:
        super().__init__()
        self.number, self.how = number, how

    def around(self, operation: Operation, call: Callable[[bytes | None], Any]) -> Any:
        if operation.number != self.number:
            return super().around(operation, call)
        if self.how == "short":
            return super().around(operation, lambda _: call(operation.data[: len(operation.data) // 2]))
        if operation.kind in _SYNCS:
            self.seen.append(replace(operation, kind="failedsync"))
        code = errno.ENOSPC if self.how == "full" else errno.EIO
        raise OSError(code, os.strerror(code))


def ways(operation: Operation) -> tuple[str, ...]:
    """How an operation can fail."""
    if operation.kind in ("write", "pwrite"):
        return ("short", "full", "broken") if len(operation.data) > 1 else ("full", "broken")
    return ("broken",) if "sync" in operation.kind else ("full", "broken")


class FailingSweep(ModelSweep):
    """One life, each operation of which fails once; `draws` power cuts of each are tried beside a kill."""

    draws = 2

    def _rounds(self) -> Iterator[None]:
        self._prepare()
        whole = self._live(Traced())
        self.tally.operations = len(whole)
        for operation in whole:
            for how in ways(operation):
                if self._draw.random() < self._share:
                    self._fail(operation, how)
                    yield

    def _fail(self, operation: Operation, how: str) -> None:
        name = f"{how} {operation.kind} {operation.path} (operation {operation.number})"
        self.world.restore(self._before)
        self._ledger.write_bytes(self._known)
        action = self.work.action(self.world.root, self._ledger)
        outcome = run(action, self.world.root, Fail(operation.number, how), self._change)
        self.tally.cuts += 1
        if outcome.crashed or not _is_a_sentence(outcome):
            self.tally.findings.append((name, Finding(failed=[outcome.failed])))
        known = list(facts(self._ledger))
        self._settle(f"{name}, then killed", known, known, refused=True)
        disk = model.Disk(self._before)
        for one in outcome.operations:
            disk.apply(one)
        due = known if self.work.pledged else oracle.owed(known)
        for cut, moves, data in model.cuts(self._draw.getrandbits(32), self.draws):
            shutil.rmtree(self.world.root, ignore_errors=True)
            model.store(disk.after_cut(moves, data), self.world.root)
            self.tally.doubles += 1
            self._settle(f"{name}, then power cut, {cut}", known, due, refused=False)

    def _settle(self, name: str, known: list[Fact], due: list[Fact], *, refused: bool) -> None:
        key = digest(self.world.root, due)
        if key in self._judged:
            return
        self._judged.add(key)
        outcome = run(recovered(self.world.root), self.world.root, Traced(), self._change)
        finding = oracle.judge(outcome, known, due, gaps=_TOLD, unattributed=1)
        if refused and not outcome.failed:
            finding.lost += _uncounted(outcome, known)
        if finding:
            self.tally.findings.append((name, finding))


def _uncounted(outcome: Outcome, known: list[Fact]) -> list[str]:
    """What could not be written, and is not in the gaps."""
    refused = sum(1 for fact in known if fact.kind == "refused")
    counted = sum(gap["lost"] or 0 for gap in outcome.value["gaps"] if gap["cause"] == "write_failed")
    # The recorder writes frames of its own too, such as a resource again at the start of a segment.
    return [f"{refused} frames could not be written, the gaps tell of {counted}"] if counted < refused else []


def _is_a_sentence(outcome: Outcome) -> bool:
    """Whether what the user is told is one sentence, with a way out."""
    told = outcome.refused
    return not told or ("\n" not in told and bool(re.search(r"[:;,] \w+", told)) and "Traceback" not in told)
