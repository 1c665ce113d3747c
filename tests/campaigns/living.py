"""`living.py WORK ROOT LEDGER`: one life in a process of its own, for strace to watch or to strike.

Prints how many operations of each kind the tap saw; exits with 3 and one sentence where the recorder refused.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from campaigns.children import Traced
from campaigns.ledger import Ledger
from campaigns.operations import Tap
from campaigns.works import WORKS

from fencepost_recorder import RecorderError

REFUSED = 3


def command(work: str, root: Path, ledger: Path) -> list[str]:
    """What runs it."""
    return [sys.executable, __file__, work, str(root), str(ledger)]


def main(name: str, root: Path, ledger: Path) -> int:
    work = {one.name: one for one in WORKS}[name]
    plan = Traced()
    Tap(root, plan).install()
    try:
        work.prepare(root, Ledger(ledger))
        work.run(root, Ledger(ledger))
    except RecorderError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    kinds = Counter("sync" if one.kind == "syncdir" else one.kind for one in plan.seen if one.kind != "create")
    sys.stdout.write(json.dumps(kinds))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
