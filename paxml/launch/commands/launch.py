"""`pax launch`: several processes on this machine, which train one model together."""

import argparse
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any, NamedTuple

from paxml.launch.jobs import MODES

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_COUNT_FLAG = re.compile(r"--xla_force_host_platform_device_count=\S+")


class _End(NamedTuple):
    """A process that ended; `code` is minus the signal if one ended it."""

    process: int
    code: int


def launch(arguments: Sequence[str]) -> int:
    """Starts the processes and waits for them.

    SIGINT and SIGTERM go on to all of them. When one fails the others are ended.

    Returns:
      The exit code of the first process that failed, 128 plus the number of a signal that ended
      it; 0 if none failed.
    """
    options = _parser().parse_args(arguments)
    if not options.command or options.command[0] not in MODES:
        given = f"got {options.command[0]!r}" if options.command else "got none"
        raise ValueError(f"pax launch takes one of the commands {', '.join(MODES)}; {given}.")
    for name in ("processes", "devices_per_process"):
        if (value := getattr(options, name)) < 1:
            raise ValueError(f"--{name} is {value}, expected at least 1.")
    command, *flags = options.command
    address = f"127.0.0.1:{free_port()}"
    started = []
    try:
        for index in range(options.processes):
            own = [f"--server_addr={address}", f"--num_hosts={options.processes}"]
            started.append(
                subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "paxml.cli",
                        command,
                        *flags,
                        *own,
                        f"--host_idx={index}",
                    ],
                    env=_environment(index, options.devices_per_process, address),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    # So that Ctrl-C reaches them once: by this process.
                    start_new_session=True,
                )
            )
        return _Group(started, options.grace_secs).wait()
    finally:
        for process in started:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of this machine that nobody uses at this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class _Group:
    """Processes that run and end together."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]], grace_secs: float) -> None:
        self._processes = processes
        self._grace_secs = grace_secs
        self._signal: int | None = None
        self._ends: queue.Queue[_End] = queue.Queue()
        self._readers: list[threading.Thread] = []
        for index, process in enumerate(processes):
            assert process.stdout is not None
            assert process.stderr is not None
            self._readers += [
                _start(_copy, process.stdout, sys.stdout, f"[{index}] "),
                _start(_copy, process.stderr, sys.stderr, f"[{index}] "),
            ]
            _start(lambda i, one: self._ends.put(_End(i, one.wait())), index, process)

    def wait(self) -> int:
        """Returns the exit code when all have ended."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        kinds = _SIGNALS if in_main_thread else ()
        before = {kind: signal.signal(kind, self._pass_on) for kind in kinds}
        try:
            failed = self._wait()
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
        for reader in self._readers:
            reader.join(timeout=1.0)
        if failed is None:
            return 0
        return failed.code if failed.code > 0 else 128 - failed.code

    def _wait(self) -> _End | None:
        failed, deadline = None, None
        for _ in self._processes:
            while True:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                try:
                    end = self._ends.get(timeout=left)
                    break
                except queue.Empty:
                    self._send(signal.SIGKILL)
                    deadline = None
            if end.code and failed is None:
                failed, deadline = end, time.monotonic() + self._grace_secs
                if self._signal is None:
                    self._tell(end)
                    self._send(signal.SIGTERM)
        return failed

    def _tell(self, end: _End) -> None:
        how = f"with exit code {end.code}"
        if end.code < 0:
            how = f"by {signal.Signals(-end.code).name}"
        if end.code == -signal.SIGABRT:
            how += " (so JAX ends a process when another does not answer)"
        print(
            f"pax launch: process {end.process} of {len(self._processes)} was the first to end, "
            f"{how}. The others are ended too, within {self._grace_secs:g} s (--grace_secs).",
            file=sys.stderr,
            flush=True,
        )

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signal = number
        self._send(number)

    def _send(self, number: int) -> None:
        for process in self._processes:
            process.send_signal(number)  # none to a process that has been waited for


def _copy(source: Any, target: Any, prefix: str) -> None:
    """Passes the lines of one text stream on to another as they come."""
    with source:
        for line in source:
            target.write(f"{prefix}{line}" if line.endswith("\n") else f"{prefix}{line}\n")
            target.flush()


def _start(work: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def _environment(index: int, devices: int, address: str) -> dict[str, str]:
    """Says which devices a process has: so many CPU devices, or those accelerators in turn."""
    others = _COUNT_FLAG.sub("", os.environ.get("XLA_FLAGS", ""))
    count = f"--xla_force_host_platform_device_count={devices}"
    return {
        **os.environ,
        "XLA_FLAGS": f"{others} {count}".strip(),
        "JAX_LOCAL_DEVICE_IDS": ",".join(
            str(index * devices + device) for device in range(devices)
        ),
        "JAX_COORDINATOR_BIND_ADDRESS": address,  # nobody outside can reach it
        "PYTHONUNBUFFERED": "1",
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pax launch",
        description="Starts processes on this machine that run one experiment together.",
    )
    parser.add_argument("--processes", type=int, required=True, help="how many")
    parser.add_argument(
        "--devices_per_process",
        type=int,
        default=1,
        help="accelerators, or devices that the CPU is split into; default: %(default)s",
    )
    parser.add_argument(
        "--grace_secs",
        type=float,
        default=20.0,
        help="after one has failed, how long the others may take to end; default: %(default)s",
    )
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="COMMAND ...",
        help="train, eval or decode with its flags",
    )
    return parser
