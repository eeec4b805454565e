"""Let Ctrl-C and SIGTERM end a stage within a second, even during a long computation.

Python raises KeyboardInterrupt only between two of its own instructions, and one pack of a large
model can take many seconds. A second thread therefore learns of the signal immediately, and ends
the process if the main thread does not leave by itself. This is safe: files are written
atomically, and the operating system releases the lock.
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

GRACE_S = 0.5  # time in which the main thread can leave by itself


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""

    exit_code = errors.EXIT_TERMINATED


@contextlib.contextmanager
def handle_signals(prog: str, grace_s: float = GRACE_S) -> Iterator[None]:
    """Handle both signals inside the context; outside the main thread this does nothing.

    The main thread has ``grace_s`` seconds to leave by itself.
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
