"""The campaigns of a crash at every operation: by kill, by power cut (real, and modelled), by a failing disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from campaigns import worlds
from campaigns.children import Change
from campaigns.failing import FailingSweep
from campaigns.scale import Figure, figure, not_run, scale
from campaigns.sweep import Sweep, Tally
from campaigns.torn import Modelled, ModelSweep
from campaigns.works import TAKE, WORKS, Work

# How much of all crashes, and of all pairs of crashes, the full size tries. A life has some two hundred operations
# and so has its recovery: all pairs would be forty thousand lives a work.
_PAIRS = {"killed": 0.2, "modelled": 0.05, "failing": 0.0, "power": 1.0}
POWER = {
    f"{name}, {what}": (name, flag)
    for name in ("ext4", "xfs")
    for what, flag in (("nothing unsynced survives", worlds.NOTHING_MORE), ("names survive", worlds.NAMES_TOO))
}


def sweep(kind: str, work: Work, *, share: float, pairs: float, change: Change | None = None, seed: int = 0) -> Tally:
    """One sweep of a kind (killed, modelled, failing, or one of POWER); with a `change`, up to the first finding."""
    options = {"share": share, "pairs": pairs, "change": change, "seed": seed}
    with tempfile.TemporaryDirectory(prefix="fencepost-", dir=memory()) as scratch:
        folder, first = Path(scratch), change is not None
        if kind == "killed":
            return Sweep(work, worlds.Killed(folder), **options).run(folder, at_first=first)  # type: ignore[arg-type]
        if kind == "modelled":
            return ModelSweep(work, Modelled(folder), **options).run(folder, at_first=first)  # type: ignore[arg-type]
        if kind == "failing":
            return FailingSweep(work, Modelled(folder), **options).run(folder, at_first=first)  # type: ignore[arg-type]
        with worlds.power(folder / "power", *POWER[kind]) as world:
            return Sweep(work, world, **options).run(folder, at_first=first)  # type: ignore[arg-type]


def killed() -> Iterator[Figure]:
    """SIGKILL at every operation, and at every operation of the recovery."""
    yield from _figures("killed", ["killed"])


def modelled() -> Iterator[Figure]:
    """A power cut at every operation, on a file system that keeps only what was synced."""
    yield from _figures("modelled", ["modelled"])


def failing() -> Iterator[Figure]:
    """Every operation fails once, then a kill or a power cut."""
    yield from _figures("failing", ["failing"], TAKE)


def power() -> Iterator[Figure]:
    """A power cut at every operation, on ext4 and XFS."""
    for kind, (file_system, _) in POWER.items():
        reason = worlds.why_not(file_system)
        if reason:
            yield not_run(f"power cut at every operation, {kind}", reason)
        else:
            worlds.alone()
            yield from _figures("power", [kind])


def _figures(group: str, kinds: list[str], *more: Work) -> Iterator[Figure]:
    size = scale()
    for kind in kinds:
        # The smallest sample takes one work a kind, each its own.
        for work in (*WORKS, *more) if size >= 0.01 else WORKS[len(kind) % len(WORKS) :][:1]:
            begun = time.monotonic()
            tally = sweep(kind, work, share=min(1.0, 3 * size), pairs=min(_PAIRS[group], size))
            yield figure(
                f"{kind} at every operation of {work.name}",
                tally.cuts,
                "crashes",
                operations=tally.operations,
                second_crashes=tally.doubles,
                **tally.figures(),
                first=tally.words(3),
                seconds=round(time.monotonic() - begun, 1),
            )


def memory() -> str | None:
    """Where scratch files cost least."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
