"""The processes that explore on all cores: they end when asked, when interrupted, and when nobody waits for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context, parent_process
from threading import Thread


@contextmanager
def processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of so many; what is left to do when the block ends by an exception is not done."""
    # Arrow and DuckDB have threads: their processes are started anew, not forked.
    pool = ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=_begin)
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
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot ask anybody to end."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
