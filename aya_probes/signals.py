"""Ctrl-C and SIGTERM end a stage within a second, also in the middle of a long computation.

Python raises KeyboardInterrupt only between two of its own instructions, and one pack of a large
model can take many seconds. A watching thread is told of the signal at once and ends the process
if the main thread has not left by itself. Nothing is lost by that: files appear whole or not at
all, and the operating system frees the lock.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

from aya_probes import command_line, errors

GRACE_S = 0.5  # for the main thread to leave by itself


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""

    exit_code = errors.EXIT_TERMINATED


@contextlib.contextmanager
def handle_signals(prog: str, grace_s: float = GRACE_S) -> Iterator[None]:
    """Handle both signals at once inside the context; does nothing outside the main thread.

    ``grace_s`` is what the main thread has to leave by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = threading.Event()
    reader, writer = socket.socketpair()
    writer.setblocking(False)

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    def watch() -> None:
        with reader:
            while numbers := reader.recv(1):
                if numbers[0] in (signal.SIGINT, signal.SIGTERM) and not left.wait(grace_s):
                    terminated = numbers[0] == signal.SIGTERM
                    os.write(2, f"\n{command_line.interruption_message(prog)}\n".encode())
                    os._exit(errors.EXIT_TERMINATED if terminated else errors.EXIT_INTERRUPTED)

    before = signal.signal(signal.SIGTERM, terminate)
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, before)
        writer.close()  # ends the thread
