"""The Linux guest on a Network, and what the client sees of it.

    with Network() as network, TickReceiver(network.client) as ticks, \\
         LinuxGuest("guest", network.source, ticks=ticks) as guest:
        guest.wait_up()
        print(http_get(network.client, guest.address))
        print(ticks.last()["memory_bad"], ticks.summary().largest_gap_ms)

Without a TickReceiver the guest sends nothing by itself, and a client that knows its MAC (Namespace.know) asks
for nothing: after a move they meet again only if somebody announces the guest. A destination is a LinuxGuest with the same arguments on network.destination, and incoming=True.
"""
import http.client
import socket
import struct
import threading
import time

from tests.guests.linux import build
from . import netns
from .deadline import wait_until
from .netns import Network
from .qemu import Qemu
from .ticks import TickSummary

ADDRESS = f"{Network.PREFIX}.100"
MAC = "52:54:00:77:00:64"
ECHO_PORT = 7      # sends back what it gets
COUNTER_PORT = 19  # sends 0, 1, 2, ... as little-endian 64-bit numbers
_BLOCK = 4096
_STRIDE = 0x9e3779b97f4a7c15


def unavailable():
    """Why there can be no Linux guest here, or None."""
    reason = netns.available()
    if reason:
        return reason
    try:
        build.build()
    except build.CannotBuild as error:
        return f"no Linux guest: {error}"
    return None


def write_disk_image(path, mib=16):
    """A raw disk of the pattern that the guest's agent expects (rf.disk)."""
    with open(path, "wb") as image:
        for block in range(mib * 256):
            image.write(struct.pack("<Q", (block + 1) * _STRIDE % 2**64) * (_BLOCK // 8))


class LinuxGuest(Qemu):
    """Arguments beyond those of Qemu:

    host              the netns.Namespace it lives in
    ticks             a TickReceiver, or None
    tick_ms           time between UDP ticks, and between numbers from COUNTER_PORT
    mem_mib, mem_rate memory that it rewrites, and how many pages a second (0: as fast as it can)
    disk              path of a write_disk_image, read with O_DIRECT in the guest all the time
    disk_direct       direct I/O on the host
    """

    def __init__(self, name, host, *, ticks=None, address=ADDRESS, mac=MAC, tick_ms=5,
                 mem_mib=32, mem_rate=1000, disk=None, disk_direct=False, extra=(), **arguments):
        images = build.build()
        self.address = address
        line = ["console=ttyS0 quiet panic=-1 mitigations=off no_timer_check ipv6.disable=1",
                f"rf.ip={address}/24", f"rf.tick_ms={tick_ms}",
                f"rf.mem_mib={mem_mib}", f"rf.mem_rate={mem_rate}"]
        line += [f"rf.neighbour={peer}/{peer_mac}" for peer, peer_mac in Network.neighbours()]
        if ticks:
            line.append(f"rf.ticks={ticks.address}:{ticks.port}")
        extra = list(extra) + host.nic(mac)
        if disk:
            line.append("rf.disk=/dev/vda")
            # In two nodes, as libvirt says it: the disk itself then does not know how its file was opened.
            direct = "on" if disk_direct else "off"
            extra += ["-blockdev", f"driver=file,node-name=file0,filename={disk},cache.direct={direct},read-only=on",
                      "-blockdev", "driver=raw,node-name=disk0,file=file0,read-only=on",
                      "-device", "virtio-blk-pci,drive=disk0"]
        super().__init__(name, kernel=images.kernel, initrd=images.initrd, append=" ".join(line),
                         netns=host.name, extra=extra, **arguments)
        self._console = self._directory / "console"
        self.arguments += self._port_arguments("serial", f"file:{self._console}")

    def console(self):
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    def wait_up(self, seconds=180.0):
        """Until its services run."""

        def up():
            if self.process.poll() is not None:
                raise RuntimeError(f"QEMU {self.name} ended: {self.log.read_text()}\n{self.console()}")
            if "agent ended" in self.console():
                raise RuntimeError(f"the guest's agent failed:\n{self.console()}")
            return "agent: running" in self.console()

        wait_until(up, "the Linux guest to be up", seconds, interval=0.1)


class TickReceiver:
    """Takes the guest's UDP ticks in a namespace; stamps them with this host's monotonic clock."""

    _FORMAT = struct.Struct("<8s7Q")
    _FIELDS = ("number", "uptime_ns", "memory_work", "memory_bad", "disk_reads", "disk_bad",
               "disk_first_bad_block")

    def __init__(self, namespace):
        self.address = namespace.address
        self._socket = namespace.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.address, 0))
        self.port = self._socket.getsockname()[1]
        self._socket.settimeout(0.2)
        self._lock = threading.Lock()
        self._ticks = []
        self._end = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._end = True
        self._thread.join()
        self._socket.close()

    def ticks(self):
        """Dicts with `time` (time.monotonic() of arrival), `number` and the guest's other figures."""
        with self._lock:
            return list(self._ticks)

    def last(self):
        """The newest tick, or None."""
        with self._lock:
            return self._ticks[-1] if self._ticks else None

    def wait(self, condition, what, seconds=60.0):
        """Until condition(newest tick) holds; returns that tick."""
        return wait_until(lambda: (tick := self.last()) and condition(tick) and tick, what, seconds)

    def summary(self, start=None, end=None):
        """As TickObserver.summary; `repeated` counts ticks that did not go forward. One sender only."""
        ticks = [tick for tick in self.ticks()
                 if (start is None or tick["time"] >= start) and (end is None or tick["time"] <= end)]
        summary = TickSummary(len(ticks), 0.0, 0.0, ("guest", "guest"), 0, 0, 0)
        for before, after in zip(ticks, ticks[1:]):
            gap = (after["time"] - before["time"]) * 1e3
            if gap > summary.largest_gap_ms:
                summary.largest_gap_ms, summary.gap_start = gap, before["time"]
            step = after["number"] - before["number"]
            summary.repeated += step <= 0
            summary.lost += max(0, step - 1)
        return summary

    def _run(self):
        while not self._end:
            try:
                data = self._socket.recv(2048)
            except TimeoutError:
                continue
            now = time.monotonic()
            if len(data) != self._FORMAT.size or not data.startswith(b"RFTICK01"):
                continue
            tick = dict(zip(self._FIELDS, self._FORMAT.unpack(data)[1:]), time=now)
            with self._lock:
                self._ticks.append(tick)


def connect(namespace, address, port, seconds=30.0):
    """A TCP connection out of the namespace."""
    connection = namespace.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.connect((address, port))
    return connection


def echo(connection, data):
    """Sends data to the echo service and returns what comes back, as much as was sent."""
    connection.sendall(data)
    answer = b""
    while len(answer) < len(data):
        part = connection.recv(len(data) - len(answer))
        if not part:
            raise ConnectionError("the guest closed its connection")
        answer += part
    return answer


def http_get(namespace, address, path="/", seconds=30.0):
    """Fetches a page; returns (status, body)."""
    client = http.client.HTTPConnection(address, timeout=seconds)
    client.sock = connect(namespace, address, 80, seconds)
    try:
        client.request("GET", path)
        response = client.getresponse()
        return response.status, response.read()
    finally:
        client.close()
