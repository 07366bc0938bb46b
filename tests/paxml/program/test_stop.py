"""Signals while training runs."""

import os
import signal
import threading

import jax
import pytest

from paxml.program.stop import SIGNALS, StopRequest


def handlers():
    return [signal.getsignal(kind) for kind in SIGNALS]


def test_the_first_signal_is_noted_and_the_second_interrupts(caplog):
    before = handlers()
    with StopRequest() as stop:
        assert not stop.reached(3)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.reached(3)
        assert "Got SIGINT: finishing the current step" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert handlers() == before


def test_the_handlers_come_back_after_an_error():
    before = handlers()
    with pytest.raises(RuntimeError), StopRequest():
        assert handlers() != before
        raise RuntimeError
    assert handlers() == before


def test_with_several_processes_signals_are_left_to_jax(monkeypatch):
    """SIGINT is handed on as SIGTERM, which `jax.distributed` handles; here a stand-in does."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    got = []
    terminate = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        before = handlers()
        with StopRequest() as stop:
            assert handlers()[1] == before[1]
            assert (stop.exit_code(False), stop.exit_code(True)) == (143, 1)
            os.kill(os.getpid(), signal.SIGINT)
            assert (got, stop.exit_code(False)) == ([signal.SIGTERM], 130)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert handlers() == before
    finally:
        signal.signal(signal.SIGTERM, terminate)


def test_outside_the_main_thread_nothing_is_noted():
    before, seen = handlers(), []

    def work():
        with StopRequest():
            seen.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before
