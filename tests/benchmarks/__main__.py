"""`make bench`: every bench_*.py of this folder, one JSON line a figure. Ratios within one run, never timed tests."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path


def main() -> None:
    folder = Path(__file__).parent
    sys.path.insert(0, str(folder.parent))
    for path in sorted(folder.glob("bench_*.py")):
        for figure in importlib.import_module(f"benchmarks.{path.stem}").figures():
            sys.stdout.write(json.dumps(figure) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
