"""The sweep over an adversarial file system: every folder that a power cut may leave, as `model` draws them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from campaigns import model
from campaigns.children import Traced
from campaigns.ledger import Fact, facts
from campaigns.operations import Operation
from campaigns.sweep import Sweep, digest
from campaigns.worlds import Killed


class Modelled(Killed):
    """The folder is made anew for each cut."""

    name = "model"
    power = True


class ModelSweep(Sweep):
    """One life is traced; what a power cut after each of its operations may leave is built, and recovered.

    Besides the extremes, `draws` ways to go are tried after each operation, one after those of a recovery.
    """

    draws = 4

    def _rounds(self) -> Iterator[None]:
        self._prepare()
        operations = self._live(Traced())
        self.tally.operations = len(operations)
        for name, number, state in self._states(self._before, operations, self._share, self.draws):
            self.tally.cuts += 1
            known = list(facts(self._ledger, number))
            if self._is_new(state, known):
                self.world.save(self._saved)
                self._again(name, known, self._judge(name, known))
            yield

    def _again(self, name: str, known: list[Fact], operations: list[Operation]) -> None:
        """The power goes once more, after each operation of the recovery."""
        for second, _, state in self._states(self._saved, operations, self._pairs, 1):
            self.tally.doubles += 1
            if self._is_new(state, known):
                self._judge(f"{name}; then {second}", known)

    def _states(
        self, before: Path, operations: list[Operation], share: float, draws: int
    ) -> Iterator[tuple[str, int, model.Folder]]:
        """What a cut after so many operations may leave; of all of them, a share."""
        numbers = [number for number in range(len(operations) + 1) if self._draw.random() < share]
        if draws > 1:
            # The end first: what is not synced by then never will be.
            yield from self._left_after(before, operations, [len(operations)], draws)
        yield from self._left_after(before, operations, numbers, draws)

    def _left_after(
        self, before: Path, operations: list[Operation], numbers: list[int], draws: int
    ) -> Iterator[tuple[str, int, model.Folder]]:
        disk, done = model.Disk(before), 0
        for number in numbers:
            for operation in operations[done:number]:
                disk.apply(operation)
            done = number
            last = operations[number - 1] if number else None
            after = f"after {last.kind} {last.path} (operation {last.number})" if last else "before anything"
            for name, moves, data in model.cuts(self._draw.getrandbits(32), draws):
                yield f"{after}, {name}", number, disk.after_cut(moves, data)

    def _is_new(self, state: model.Folder, known: list[Fact]) -> bool:
        """Put a state into the root; whether it was not judged before."""
        shutil.rmtree(self.world.root, ignore_errors=True)
        model.store(state, self.world.root)
        return digest(self.world.root, known) not in self._judged
