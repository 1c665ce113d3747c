"""The command `fencepost`: one small module for each group of commands, all of them thin.

Heavy libraries are imported inside the commands that need them, so that `fencepost --help` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (default: that of the process) and answers its exit code.

    0 holds or done, 1 violated, 3 unknown, 2 what could not be done, 130 interrupted."""
    try:
        # Inside the try, for even imports take a moment in which a person may press Ctrl-C.
        from fencepost_analyzer.cli.failures import guarded

        if arguments is not None:
            return guarded(lambda: _run(list(arguments)))
        code = guarded(lambda: _run(sys.argv[1:]))
        # Everything has been said: a Ctrl-C that comes while the interpreter ends must not change the verdict.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return code
    except KeyboardInterrupt:
        sys.stderr.write("fencepost: interrupted.\n")
        return 130


def _run(arguments: list[str]) -> int:
    from fencepost_analyzer.cli.app import run

    return run(arguments)
