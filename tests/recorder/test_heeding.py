"""What must not be cut short is not, whichever thread a signal reaches, and the signal is not lost."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from fencepost_recorder.heeding import ENDING, Heeded, undisturbed


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "with another thread"])
@pytest.mark.parametrize("number", sorted(ENDING), ids=lambda number: signal.Signals(number).name)
def test_a_signal_that_comes_meanwhile_is_handled_afterwards(number: int, others: int) -> None:
    over, seen = threading.Event(), list[int]()
    threads = [threading.Thread(target=over.wait) for _ in range(others)]
    before = signal.signal(number, lambda number, _: seen.append(number))
    try:
        for thread in threads:
            thread.start()
        with undisturbed():
            send(number)
            assert seen == []
        assert seen == [number]
    finally:
        signal.signal(number, before)
        over.set()
    for thread in threads:
        thread.join()


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
