"""`python tests/campaigns [NAME…]`: run campaigns, one JSON line a figure; FENCEPOST_CAMPAIGN_SCALE says how large.

Exits with 1 when a figure is not zero that must be.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from campaigns import conditions, escapes, everywhere, mutations, randomly, seeding
from campaigns.scale import Figure, failures, told

CAMPAIGNS = {
    "escaping": escapes.escaping,
    "killed": everywhere.killed,
    "modelled": everywhere.modelled,
    "failing": everywhere.failing,
    "power": everywhere.power,
    "mutated": mutations.mutated,
    "random": randomly.random_kills,
    "surroundings": conditions.bad_surroundings,
    "seeded": seeding.seeded,
}


def main() -> int:
    unknown = [name for name in sys.argv[1:] if name not in CAMPAIGNS]
    if unknown:
        sys.stderr.write(f"there is no campaign {unknown[0]!r}: choose from {', '.join(CAMPAIGNS)}\n")
        return 2
    return max(_alone(CAMPAIGNS[name]) for name in sys.argv[1:] or CAMPAIGNS)


def _alone(campaign: Callable[[], Iterator[Figure]]) -> int:
    """Each campaign has a process of its own: it may mount things, or start threads with which nobody can fork."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        code = 1 if failures(told(campaign())) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
