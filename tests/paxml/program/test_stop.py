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
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    before = handlers()
    with StopRequest() as stop:
        assert handlers() == before
        assert (stop.exit_code(False), stop.exit_code(True)) == (143, 1)


def test_outside_the_main_thread_nothing_is_noted():
    before, seen = handlers(), []

    def work():
        with StopRequest():
            seen.extend(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before
