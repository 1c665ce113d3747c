"""Signals as something to read, in the order in which they came, instead of something that interrupts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

# What somebody may send to a program to tell it something.
PASSED_ON = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
    | set(range(signal.SIGRTMIN, signal.SIGRTMAX))
)
ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
STOPPING = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})


class Heeded:
    """While it is entered, the signals `numbers` are read from it and do nothing else; those ignored stay ignored.

    Programs started meanwhile begin with the usual dispositions. Only in the main thread.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = frozenset(numbers)
        self._before: dict[int, Any] = {}
        self._reader = self._writer = -1
        self._wakeup = -1

    def __enter__(self) -> Heeded:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            # Whoever started us with a signal ignored, as nohup does, means the command; SIGCHLD alone we need.
            if number == signal.SIGCHLD or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _nothing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._reader

    def numbers(self) -> list[int]:
        """The signals that have come since the last call."""
        found = bytearray()
        with suppress(BlockingIOError):
            while data := os.read(self._reader, 4096):
                found += data
        return [number for number in found if number in self._numbers]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold back the signals by which people end or stop a program, from this one and from what it starts.

    Those by which they end it are handled afterwards. In another thread than the main one it holds them from that
    thread alone, which Python gives none to handle anyway.
    """
    came: list[int] = []
    held = _handled() if threading.current_thread() is threading.main_thread() else {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING | STOPPING)
    try:
        # A thread that was there before takes what this one does not, and Python has it handled here all the same.
        for number in held:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for late in came:
            signal.raise_signal(late)


def _handled() -> dict[signal.Signals, Any]:
    """By what the signals that end a program are handled; without those that nobody handles, or that are heeded."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    return {number: handler for number, handler in handlers.items() if handler not in (signal.SIG_IGN, _nothing)}


def stop_as(number: int) -> None:
    """Stop this process by a signal of the terminal's, as if it were not heeded; returns when it is continued."""
    handler = signal.signal(number, signal.SIG_DFL)
    try:
        os.kill(os.getpid(), number)
    finally:
        signal.signal(number, handler)


def _nothing(number: int, frame: FrameType | None) -> None:
    """The number is in the pipe already."""
