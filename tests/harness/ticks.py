"""Sees the test guest's ticks from outside, on source and destination alike: downtime as the guest lives it.

A tick is one byte with the top bit set and the low seven bits of the tick's number. QEMU connects to a unix
socket of the observer; every byte is stamped with this host's monotonic clock when it is read.

    with TickObserver() as observer:
        source = Qemu("source", serial=observer.listen("source"), ...)
        target = Qemu("target", serial=observer.listen("target"), ...)
        ...
        summary = observer.summary()
        print(summary.count, summary.largest_gap_ms, summary.lost)

The observer is a thread: keep the test's own thread from holding the interpreter for long meanwhile.
"""
import os
import selectors
import shutil
import socket
import tempfile
import threading
import time
from dataclasses import dataclass


@dataclass
class TickSummary:
    count: int              # ticks seen
    largest_gap_ms: float   # longest time between two neighbouring ticks, whoever sent them
    gap_start: float        # time.monotonic() at which that gap began
    gap_between: tuple      # the names of the senders before and after it
    switches: int           # how often the sender changed: 1 after one migration
    lost: int               # ticks missing from the sequence
    repeated: int           # ticks that came twice in a row: would mean that two guests run


class TickObserver:
    def __init__(self):
        self._directory = tempfile.mkdtemp(prefix="ramferry-ticks-")
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._ticks = []  # (time.monotonic(), name, number modulo 128)
        self._senders = []  # names, one each time that it changed
        self._text = {}
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def listen(self, name):
        """A socket path for one QEMU's serial port or debug console."""
        path = os.path.join(self._directory, name)
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(1)
        with self._lock:
            self._text[name] = b""
        self._selector.register(server, selectors.EVENT_READ, (name, True))
        os.write(self._wake_write, b"x")
        return path

    def ticks(self, name=None):
        """(time, name, number modulo 128) of each tick, in order of arrival."""
        with self._lock:
            return [tick for tick in self._ticks if name in (None, tick[1])]

    def senders(self):
        """The names that ticks came from, one each time that it changed."""
        with self._lock:
            return list(self._senders)

    def forget(self):
        """Drops the ticks so far, for those who watch for hours; senders() stays."""
        with self._lock:
            self._ticks.clear()

    def text(self, name):
        """What else a guest printed there."""
        with self._lock:
            return self._text[name].decode("ascii", "replace")

    def summary(self, start=None, end=None):
        """Over all ticks, or those that arrived between two values of time.monotonic()."""
        ticks = [tick for tick in self.ticks()
                 if (start is None or tick[0] >= start) and (end is None or tick[0] <= end)]
        summary = TickSummary(len(ticks), 0.0, 0.0, ("", ""), 0, 0, 0)
        for before, after in zip(ticks, ticks[1:]):
            gap = (after[0] - before[0]) * 1e3
            if gap > summary.largest_gap_ms:
                summary.largest_gap_ms = gap
                summary.gap_start = before[0]
                summary.gap_between = (before[1], after[1])
            summary.switches += before[1] != after[1]
            step = (after[2] - before[2]) % 128
            summary.repeated += step == 0
            summary.lost += max(0, step - 1)
        return summary

    def close(self):
        if self._thread is None:
            return
        os.write(self._wake_write, b"q")
        self._thread.join()
        self._thread = None
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.fileobj.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _run(self):
        while True:
            # Of ticks that all wait to be read, those of the last sender come first: the thread may have been
            # held up for longer than a move stops the guest.
            last = self._senders[-1] if self._senders else None
            for key, _ in sorted(self._selector.select(), key=lambda event: event[0].data != (last, False)):
                if key.data is None:
                    if b"q" in os.read(self._wake_read, 64):
                        return
                elif key.data[1]:
                    connection, _ = key.fileobj.accept()
                    self._selector.register(connection, selectors.EVENT_READ, (key.data[0], False))
                else:
                    self._take(key)

    def _take(self, key):
        try:
            data = key.fileobj.recv(4096)
        except OSError:
            data = b""
        now = time.monotonic()
        if not data:
            self._selector.unregister(key.fileobj)
            key.fileobj.close()
            return
        name = key.data[0]
        ticks = [(now, name, byte & 0x7f) for byte in data if byte & 0x80]
        with self._lock:
            self._ticks += ticks
            if ticks and self._senders[-1:] != [name]:
                self._senders.append(name)
            self._text[name] += bytes(byte for byte in data if not byte & 0x80)
