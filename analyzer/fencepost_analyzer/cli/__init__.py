"""The command `fencepost`: one small module for each group of commands, all of them thin.

Heavy libraries are imported inside the commands that need them, so that `fencepost --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fencepost_analyzer.cli.failures import guarded


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line (default: that of the process) and answers its exit code.

    0 holds or done, 1 violated, 3 unknown, 2 what could not be done, 130 interrupted."""

    def command() -> int:
        from fencepost_analyzer.cli.app import run

        return run(sys.argv[1:] if arguments is None else list(arguments))

    return guarded(command)
