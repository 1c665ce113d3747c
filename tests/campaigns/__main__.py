"""`python tests/campaigns [NAME…]`: run campaigns, one JSON line a figure; FENCEPOST_CAMPAIGN_SCALE says how large.

Exits with 1 when a figure is not zero that must be.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from campaigns import escapes, everywhere, seeding
from campaigns.scale import failures, told

CAMPAIGNS = {
    "escaping": escapes.escaping,
    "killed": everywhere.killed,
    "modelled": everywhere.modelled,
    "failing": everywhere.failing,
    "power": everywhere.power,
    "seeded": seeding.seeded,
}


def main() -> int:
    unknown = [name for name in sys.argv[1:] if name not in CAMPAIGNS]
    if unknown:
        sys.stderr.write(f"there is no campaign {unknown[0]!r}: choose from {', '.join(CAMPAIGNS)}\n")
        return 2
    found = [one for name in sys.argv[1:] or CAMPAIGNS for one in told(CAMPAIGNS[name]())]
    return 1 if failures(found) else 0


if __name__ == "__main__":
    sys.exit(main())
