"""`python -m fencepost_analyzer.docs`: write what pages say of the code, and what the commands that they show print.

With --check only the generated sections are looked at, and nothing is written.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fencepost_analyzer.docs import consoles
from fencepost_analyzer.docs.generate import ROOT, changed, write
from fencepost_analyzer.errors import AnalyzerError

# Commands of one page follow each other; pages wait for nobody.
AT_ONCE = 2


def main(arguments: list[str]) -> int:
    """Answers the exit code: 0, 1 if --check found a stale page, 2 with one sentence for what cannot be done."""
    try:
        if arguments == ["--check"]:
            stale = list(changed(ROOT))
            _say("stale", stale)
            return 1 if stale else 0
        if arguments:
            sys.stderr.write("usage: python -m fencepost_analyzer.docs [--check]\n")
            return 2
        _say("wrote", write(ROOT))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            _say("wrote", [path for path in pool.map(_refresh, consoles.pages(ROOT)) if path is not None])
    except (AnalyzerError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _refresh(path: Path) -> Path | None:
    text = path.read_text("utf-8")
    wanted = consoles.refreshed(text, ROOT)
    if wanted == text:
        return None
    path.write_text(wanted, "utf-8")
    return path


def _say(what: str, paths: list[Path]) -> None:
    sys.stdout.writelines(f"{what} {path.relative_to(ROOT)}\n" for path in paths)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
