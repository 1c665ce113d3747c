"""Starting a command as a shell would: the same streams, the same limits, the same answers when it cannot be."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from fencepost_recorder.errors import CommandNotStarted, printable


def start(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start a command as a shell would, with this process's streams and other open files; its process id.

    Raises CommandNotStarted.
    """
    try:
        return _spawn(list(command), environment)
    except OSError as error:
        found = shutil.which(command[0], path=environment.get("PATH"))
        if error.errno == errno.ENOEXEC and found is not None:
            return _spawn(["/bin/sh", found, *command[1:]], environment)  # as execvp(3) does
        raise _not_started(command[0], found, error) from error
    except ValueError as error:
        raise CommandNotStarted("a command cannot hold null bytes: leave them out") from error


def _spawn(command: list[str], environment: Mapping[str, str]) -> int:
    # What we opened ourselves closes by itself; what the shell opened for the command, as `<(…)` does, must stay.
    process = subprocess.Popen(command, env=dict(environment), close_fds=False)
    # It is waited for by its number, like all the others.
    process.returncode = 0
    return process.pid


def _not_started(name: str, found: str | None, error: OSError) -> CommandNotStarted:
    shown = printable(name, 100)
    # No name at all is looked for as a file that is each folder of the PATH, which is denied, not missing.
    if found is None and (isinstance(error, FileNotFoundError) or not name):
        return CommandNotStarted(f"there is no command {shown!r}: check the spelling, or your PATH", code=127)
    if isinstance(error, FileNotFoundError):
        return CommandNotStarted(f"{shown!r} cannot be run: the interpreter that its first line names is not there")
    reason = (error.strerror or "unknown").lower()
    return CommandNotStarted(f"{shown!r} cannot be run ({reason}): is it an executable file?")
