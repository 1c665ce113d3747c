"""`python -m fencepost_analyzer.docs`: write the generated sections of all pages; with --check say what is stale."""

from __future__ import annotations

import sys

from fencepost_analyzer.docs.generate import ROOT, changed, write
from fencepost_analyzer.errors import AnalyzerError


def main(arguments: list[str]) -> int:
    """Answers the exit code: 0, 1 if --check found a stale page, 2 with one sentence for what cannot be done."""
    try:
        if arguments == ["--check"]:
            stale = list(changed(ROOT))
            sys.stdout.writelines(f"stale: {path.relative_to(ROOT)}\n" for path in stale)
            return 1 if stale else 0
        if arguments:
            sys.stderr.write("usage: python -m fencepost_analyzer.docs [--check]\n")
            return 2
        sys.stdout.writelines(f"wrote {path.relative_to(ROOT)}\n" for path in write(ROOT))
    except (AnalyzerError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
