"""The command `fencepost`: one small module for each group of commands, all of them thin.

Heavy libraries are imported inside the commands that need them, so that `fencepost --help` answers at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

_TERMINATED = 128 + signal.SIGTERM


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (default: that of the process) and answers its exit code.

    0 holds or done, 1 violated, 3 unknown, 2 what could not be done, 130 interrupted, 143 ended by SIGTERM."""
    terminated: list[int] = []

    def terminate(number: int, _: FrameType | None) -> NoReturn:
        # As Ctrl-C, so that everything is left in good order; the next one ends us at once. Told apart by the list:
        # what DuckDB makes of an exception that comes while it works has no type of ours.
        signal.signal(number, signal.SIG_DFL)
        terminated.append(number)
        raise KeyboardInterrupt

    try:
        if arguments is None and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, terminate)
        # Inside the try, for even imports take a moment in which a person may press Ctrl-C.
        from fencepost_analyzer.cli.failures import guarded

        if arguments is not None:
            return guarded(lambda: _run(list(arguments)))
        code = guarded(lambda: _run(sys.argv[1:]))
        # Everything has been said: a Ctrl-C that comes while the interpreter ends must not change the verdict.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return code
    except KeyboardInterrupt:
        # At that very moment the progress may have been about to hide it, or to show it again.
        if (rich := sys.modules.get("rich.console")) is not None:
            rich.Console(file=sys.stderr).show_cursor()
        if terminated:
            sys.stderr.write("fencepost: ended by SIGTERM.\n")
            return _TERMINATED
        sys.stderr.write("fencepost: interrupted.\n")
        return 130


def _run(arguments: list[str]) -> int:
    from fencepost_analyzer.cli.app import run

    return run(arguments)
