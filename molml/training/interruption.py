"""Ctrl-C and SIGTERM, turned into a request to stop at the next good moment."""

import signal
import threading
from types import FrameType
from typing import Any, final


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped from outside, by Ctrl-C or SIGTERM; nothing is lost.

    Attributes
    ----------
    signal : signal.Signals
        What was received; 128 + signal is the exit status that shells expect.
    """

    def __init__(self, message: str, received: signal.Signals) -> None:
        super().__init__(message)
        self.signal = received


@final
class Interruption:
    """Context in which the first SIGINT or SIGTERM is noted in `received`, and the second raises at once.

    Outside the main thread, where Python allows no handlers, and for a signal that the program was told to ignore
    (nohup), nothing changes.

    Attributes
    ----------
    received : signal.Signals or None
        The signal that came.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise TrainingInterrupted("stopped at once by a second signal", signal.Signals(number))
        self.received = signal.Signals(number)
