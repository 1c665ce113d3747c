"""Subtle wrong guards, seeded into the rules that every backend shares: what explore has to find.

Each is one fragment of `rules.py` and what stands there instead; the policy that promises what the guard protects; and
the invariant that keeps that promise as long as the guard is right. A rule that is broken exists in memory only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fencepost_analyzer.lab.space import Bound
from fencepost_runtime import memory, rules
from fencepost_runtime.policy import Policy, preset

DEFAULT, PAUSES = Bound(), Bound(2, 0, 2, 0)


@dataclass(frozen=True)
class Guard:
    name: str
    right: str
    wrong: str
    policy: Policy
    invariant: str
    bound: Bound = DEFAULT


TRANSACTIONAL, FENCED = preset("transactional"), preset("fenced")
BOTH = FENCED.replace(dedupe="effect_key")

GUARDS = (
    Guard(
        "a fence that is off by one",
        "op.token < storage.row(op.job_id).token:",
        "op.token < storage.row(op.job_id).token - 1:",
        BOTH,
        "INV-003",
    ),
    Guard(
        "a fence that ends with the successor's lease",
        "if op.fencing and op.token <",
        'if op.fencing and storage.row(op.job_id).state == "leased" and op.token <',
        FENCED,
        "INV-003",
    ),
    Guard(
        "effect keys that are looked up in batches only",
        "if op.dedupe and storage",
        "if op.dedupe and isinstance(op, WriteAll) and storage",
        preset("deduped"),
        "INV-001",
    ),
    Guard(
        "a batch that settles whoever holds the lease",
        "if op.settle and not _is_current(row, op.token):",
        'if op.settle and row.state != "leased":',
        TRANSACTIONAL,
        "INV-003",
    ),
    Guard(
        "a batch that is refused after it was written",
        'refused = [_answer(storage, now, "stale_token") for _ in (*op.effects, None)]',
        "refused = [*(_apply_effect(storage, op, one, now) for one in op.effects), "
        '_answer(storage, now, "stale_token")]',
        # A reclaimer that does not look again puts back what was committed meanwhile: that alone breaks INV-001.
        TRANSACTIONAL.replace(reclaim="guarded"),
        "INV-001",
    ),
    Guard(
        "a settle that takes any older token",
        'return row.state == "leased" and row.token == token',
        'return row.state == "leased" and row.token >= token',
        BOTH,
        "INV-004",
    ),
    Guard(
        "a settle that is off by one",
        'return row.state == "leased" and row.token == token',
        'return row.state == "leased" and row.token - token in (0, 1)',
        BOTH,
        "INV-004",
    ),
    Guard(
        "a reclaim that compares the token, not the state",
        "if op.guarded and not (_is_current(row, op.token) and row.expires_at <= now):",
        "if op.guarded and not (row.token == op.token and row.expires_at <= now):",
        TRANSACTIONAL.replace(reclaim="guarded"),
        "INV-001",
        PAUSES,
    ),
    Guard(
        "a zombie that may give its job back",
        "    if refusal is not None:\n        return _answer(storage, now, refusal)\n    return _release",
        "    return _release",
        TRANSACTIONAL.replace(reclaim="guarded"),
        "INV-001",
    ),
    Guard(
        "a token that is kept when the lease changes hands",
        'row.token = storage.count(f"token/{op.queue}")',
        'row.token = row.token or storage.count(f"token/{op.queue}")',
        FENCED,
        "INV-018",
    ),
)


@contextmanager
def broken(guard: Guard) -> Iterator[None]:
    """The simulator's queue under the wrong rule. Raises AssertionError if rules.py does not say what is replaced."""
    source = Path(rules.__file__).read_text("utf-8")
    assert source.count(guard.right) == 1, guard.name
    module = ModuleType("fencepost_runtime.rules_broken")
    module.__package__ = "fencepost_runtime"
    # Dataclasses look their module up by its name.
    sys.modules[module.__name__] = module
    kept = memory.perform
    try:
        exec(compile(source.replace(guard.right, guard.wrong), guard.name, "exec"), module.__dict__)
        memory.perform = module.perform
        yield
    finally:
        memory.perform = kept
        del sys.modules[module.__name__]
