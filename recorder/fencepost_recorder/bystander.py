"""A process that stands beside the command and tells which signals were meant for everybody.

fencepost stays in the command's process group, so that the terminal, its job control and pipes treat both as one job.
Ctrl-C then reaches the command by itself, and to pass it on would make it two; but a signal sent to fencepost alone has
to be passed on. The two look alike to whoever gets them. The bystander is in the same process group, and gets what
the group gets and nothing else.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress

from fencepost_recorder import linux

# The kernel signals the members of a group one after the other, in microseconds; a busy machine may need longer.
_SETTLE_S = 0.003
_PATIENCE_S = 0.5
_FAREWELL_S = 5.0
# Signals of one number coalesce while they wait, here or there: what was heard counts for this long.
_FRESH_S = 0.25
# The last of all signals, delivered after every other that waits: whoever has answered it has told the others before.
_ASK = signal.SIGRTMAX


class Bystander:
    """Forks the bystander; `pid` is its process id. Only to be made while this process has one thread.

    Raises OSError when it cannot be forked.
    """

    def __init__(self) -> None:
        self._reports, report = os.pipe()
        me = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _stand(report, me)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            os.close(report)
        os.set_blocking(self._reports, False)
        self._heard: dict[int, float] = {}

    def heard(self, number: int) -> bool:
        """Whether the bystander has just got this signal, too; False when it is gone."""
        time.sleep(_SETTLE_S)
        with suppress(ProcessLookupError):
            os.kill(self.pid, _ASK)
            self._listen()
        return time.monotonic() - self._heard.get(number, -_FRESH_S) < _FRESH_S

    def dismiss(self) -> None:
        """Let the bystander end, by itself: whoever records us is not to see a process of ours killed."""
        os.close(self._reports)
        with suppress(ProcessLookupError, ChildProcessError):
            # Any signal has it find that nobody reads its reports; this one wakes it if somebody stopped it.
            os.kill(self.pid, signal.SIGCONT)
            if not _ends(self.pid):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _listen(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._reports], [], [], left)[0]:
                return
            try:
                data = os.read(self._reports, 4096)
            except BlockingIOError:
                continue
            self._heard |= dict.fromkeys(data, time.monotonic())
            if not data or _ASK in data:
                return


def _ends(pid: int) -> bool:
    """Whether a child ends soon; it is not reaped."""
    pidfd = os.pidfd_open(pid)
    try:
        return bool(select.select([pidfd], [], [], _FAREWELL_S)[0])
    finally:
        os.close(pidfd)


def _stand(report: int, parent: int) -> None:
    """What the bystander does, never to return: every signal is blocked, waited for, and reported by its number."""
    try:
        linux.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            return  # it died before we could wish to
        with suppress(OSError):
            linux.name_process("fp-bystander")
        os.dup2(report, 3)
        os.closerange(4, 4096)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        waited_for = signal.valid_signals() - {signal.SIGCHLD}
        while True:
            os.write(3, bytes([signal.sigwait(waited_for)]))
    finally:
        os._exit(0)
