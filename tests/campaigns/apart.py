"""Work done by a forked child, whose answer comes back: threads and limits that it takes on end with it."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class WentWrong(Exception):
    """The child raised; its traceback is the message."""


def apart(work: Callable[[], T]) -> T:
    """What `work` answers in a child. Raises WentWrong with the child's traceback, or how it died."""
    hear, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(hear)
        try:
            answer: tuple[bool, object] = (True, work())
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(say, "wb") as stream:
            pickle.dump(answer, stream)
        os._exit(0)
    os.close(say)
    with os.fdopen(hear, "rb") as stream:
        told = stream.read()
    _, status = os.waitpid(pid, 0)
    if not told:
        raise WentWrong(f"the child ended with status {status} and said nothing")
    done, value = pickle.loads(told)
    if not done:
        raise WentWrong(value)
    return value  # type: ignore[no-any-return]
