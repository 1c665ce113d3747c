"""The processes that explore on all cores: they end when asked, when interrupted, and when nobody waits for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from threading import Thread


class _Process(SpawnProcess):
    """Begins with SIGINT blocked: pressed while it imports, Ctrl-C would be told by a traceback."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Context(SpawnContext):
    Process = _Process


@contextmanager
def processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of so many; what is left to do when the block ends by an exception is not done."""
    # Arrow and DuckDB have threads: their processes are started anew, not forked.
    pool = ProcessPoolExecutor(number, mp_context=_Context(), initializer=_begin)
    others = set(active_children())
    try:
        yield pool
    except BaseException:
        # What they are at is of no use any more, and this process would wait for it before it ends.
        for process in set(active_children()) - others:
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    # Ctrl-C reaches every process of the terminal, and only the first has something to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot ask anybody to end."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
