"""What must not be cut short is not, whichever thread a signal reaches, and the signal is not lost."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fencepost_recorder.heeding import ENDING, Heeded, undisturbed

PATIENCE_S = 30


def send(number: int, thread: threading.Thread | None = None) -> None:
    """To one thread: the kernel would choose one that does not hold it back, which gets to it some time later."""
    signal.pthread_kill((thread or threading.main_thread()).ident or 0, number)


@pytest.mark.parametrize("number", sorted(ENDING), ids=lambda number: signal.Signals(number).name)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "by another thread"])
def test_a_signal_that_comes_meanwhile_is_handled_afterwards(number: int, elsewhere: bool) -> None:
    """Also where another thread takes it, whenever that gets to it."""
    over, seen = threading.Event(), list[int]()
    thread = threading.Thread(target=over.wait)
    before = signal.signal(number, lambda number, _: seen.append(number))
    try:
        thread.start()
        with undisturbed():
            send(number, thread if elsewhere else None)
            assert seen == []
        until = time.monotonic() + PATIENCE_S
        while not seen and time.monotonic() < until:
            time.sleep(0.001)  # Whoever waits for an event is not woken by what another thread takes.
        assert seen == [number]
    finally:
        signal.signal(number, before)
        over.set()
        thread.join()


def test_where_there_is_no_handler_to_hold_back_nothing_is_held() -> None:
    """Signals are handled in the main thread, whatever others do."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(undisturbed_there).result() == "done"


def undisturbed_there() -> str:
    with undisturbed():
        return "done"


def test_ctrl_c_interrupts_when_it_is_over() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), undisturbed():
        send(signal.SIGINT)
        done = True
    assert done


@pytest.mark.parametrize("sent", [[], [signal.SIGTERM]], ids=["none", "one"])
def test_a_signal_that_is_heeded_is_read_once(sent: list[int]) -> None:
    with Heeded(ENDING) as heeded:
        with undisturbed():
            for number in sent:
                send(number)
        assert heeded.numbers() == sent
