"""A QMP client: commands and events over QEMU's unix socket. One thread at a time.

    qmp = Qmp(path)
    qmp.execute("migrate", uri="unix:/tmp/x")
    qmp.wait_event("MIGRATION", lambda data: data["status"] == "completed")
"""
import json
import socket
import time

from .deadline import TimedOut


class QmpError(Exception):
    """QEMU refused a command."""


class QmpClosed(Exception):
    """QEMU has gone."""


class Qmp:
    def __init__(self, path, seconds=30.0):
        self.events = []  # every event seen: {"event", "data", "timestamp"}, oldest first
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + seconds
        while True:
            try:
                self._socket.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > end:
                    self._socket.close()
                    raise TimedOut(f"no QEMU listens on {path} after {seconds:g} s") from None
                time.sleep(0.02)
        self._receive(end)  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command, seconds=30.0, **arguments):
        """Runs one command; returns its `return`. Names with a dash: execute("x", **{"a-b": 1})."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self._send(message)
        end = time.monotonic() + seconds
        while True:
            answer = self._receive(end)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QmpError(f"{command}: {answer['error']['desc']}")

    def wait_event(self, name, predicate=lambda data: True, seconds=60.0, since=0):
        """Returns the first event of that name from events[since:] on whose data passes."""
        end = time.monotonic() + seconds
        seen = since
        while True:
            for event in self.events[seen:]:
                if event["event"] == name and predicate(event.get("data", {})):
                    return event
            seen = len(self.events)
            self._receive(end)

    def status(self):
        return self.execute("query-status")["status"]

    def close(self):
        self._socket.close()

    def _send(self, message):
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            raise QmpClosed("QEMU closed its QMP socket") from None

    def _receive(self, end):
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0:
                raise TimedOut("no answer or event from QEMU in time")
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except (TimeoutError, socket.timeout):
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                raise QmpClosed("QEMU closed its QMP socket")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        message = json.loads(line)
        if "event" in message:
            self.events.append(message)
        return message
