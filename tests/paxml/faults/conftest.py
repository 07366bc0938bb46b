"""Signals as a terminal leaves them."""

import signal

import pytest


@pytest.fixture(autouse=True)
def interrupts_raise():
    """Ctrl-C interrupts, though a shell that runs the tests in the background may ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
