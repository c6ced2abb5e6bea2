"""One QEMU for a test: its memory in shared files, two QMP sockets, everything gone afterwards.

    with TickObserver() as observer, \\
         Qemu("source", kernel=TESTGUEST, append="fill_mib=64", serial=observer.listen("source")) as source:
        source.wait_running()
        print(source.counters()["ticks"])

`source.ramferry_socket` is for Ramferry (the GUEST argument of its command line); the harness uses one of
its own, `source.qmp`.
"""
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from pathlib import Path

from tests.guests.testguest import mailbox
from . import memory
from .deadline import TimedOut, wait_until
from .qmp import Qmp, QmpClosed

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("RAMFERRY_BUILD", ROOT / "build" / "release"))
TESTGUEST = BUILD / "tests" / "guests" / "testguest.elf"

_ACCELERATORS = {
    "tcg": ["-accel", "tcg,thread=multi"],
    "kvm": ["-accel", "kvm", "-cpu", "host,-arch-capabilities"],
}


def kvm_works():
    """Whether /dev/kvm can be opened and creates a virtual machine."""
    create_vm = 0xAE01
    try:
        with open("/dev/kvm", "rb+", buffering=0) as device:
            os.close(fcntl.ioctl(device, create_vm, 0))
        return True
    except OSError:
        return False


class Qemu:
    """Arguments, all but the name by keyword:

    kernel, initrd, append   what it boots; `append` for a destination may be left out only with kernel None
    machine                  "q35" or "pc"
    accel                    "tcg" or "kvm"
    memory_mib               one size, or a list: one backend file and one NUMA node each
    memory_dir               where the backend files lie; a hugetlbfs mount works too
    smp                      number of vCPUs (at least one a NUMA node)
    incoming                 a destination: started with -incoming defer
    paused                   started with -S; a destination is, unless this is False
    awaited                  a destination that `ramferry receive` starts from definition(); arrive() meets it
    serial, debugcon         unix sockets to connect to, from TickObserver.listen; or "file:PATH"
    netns                    name of a network namespace to run in
    extra                    further arguments for QEMU
    """

    def __init__(self, name, *, kernel=None, initrd=None, append="", machine="q35", accel="tcg",
                 memory_mib=256, memory_dir="/dev/shm", smp=1, incoming=False, paused=None,
                 awaited=False, serial=None, debugcon=None, netns=None, extra=()):
        self.name = name
        self.process = None
        self.qmp = None
        self.memory = None
        self._directory = Path(tempfile.mkdtemp(prefix=f"ramferry-{name}-"))
        self.ramferry_socket = str(self._directory / "ramferry.qmp")
        self.log = self._directory / "qemu.log"
        self.netns = netns
        self.awaited = awaited
        sizes = memory_mib if isinstance(memory_mib, (list, tuple)) else [memory_mib]
        self.memory_files = [f"{memory_dir}/{self._directory.name}-ram{i}" for i in range(len(sizes))]
        self.arguments = [os.environ.get("RAMFERRY_QEMU", "qemu-system-x86_64"), "-name", name]
        self.arguments += _ACCELERATORS[accel]
        self.arguments += self._memory_arguments(machine, sizes, max(smp, len(sizes)))
        self.arguments += ["-nodefaults", "-no-user-config", "-display", "none"]
        for channel in ("ramferry", "test"):
            self.arguments += ["-qmp", f"unix:{self._directory}/{channel}.qmp,server=on,wait=off"]
        self.arguments += self._port_arguments("serial", serial) + self._port_arguments("debugcon", debugcon)
        if kernel:
            self.arguments += ["-kernel", str(kernel), "-append", append]
        if initrd:
            self.arguments += ["-initrd", str(initrd)]
        if incoming:
            self.arguments += ["-incoming", "defer"]
        if paused or (incoming and paused is None):
            self.arguments += ["-S"]
        self.arguments += list(extra)

    def __enter__(self):
        try:
            return self if self.awaited else self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_):
        self.stop()

    def start(self):
        # Should the test itself be killed, the kernel takes QEMU down with it.
        command = ["setpriv", "--pdeathsig", "KILL"]
        if self.netns:
            command += ["ip", "netns", "exec", self.netns]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command + self.arguments, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        socket_path = self._directory / "test.qmp"
        wait_until(lambda: socket_path.exists() or self.process.poll() is not None, f"QEMU {self.name}")
        try:
            self.qmp = Qmp(socket_path)
        except (QmpClosed, TimedOut, OSError):
            raise RuntimeError(f"QEMU {self.name} did not start: {self.log.read_text()}\n"
                               f"{' '.join(self.arguments)}") from None
        self.memory = memory.GuestMemory(self.memory_files)
        return self

    def definition(self):
        """The text of the guest definition (TOML) from which `ramferry receive` starts this QEMU."""
        prefix = ["ip", "netns", "exec", self.netns] if self.netns else []
        words = ",\n  ".join(json.dumps(word) for word in prefix + self.arguments)
        return f"name = {json.dumps(self.name)}\nargv = [\n  {words}\n]\n"

    def arrive(self, seconds=30.0):
        """Meets an awaited QEMU, which has been started from definition()."""
        self.qmp = Qmp(self._directory / "test.qmp", seconds)
        self.process = ForeignProcess(peer_of(self._directory / "test.qmp"))
        self.memory = memory.GuestMemory(self.memory_files)
        return self

    def processes(self):
        """The PIDs of all processes that were started with this QEMU's arguments."""
        return processes_with(str(self._directory))

    def stop(self):
        """Ends QEMU and removes its files. May be called at any time, and twice."""
        if self.qmp:
            self.qmp.close()
            self.qmp = None
        if self.process:
            if self.process.poll() is None:
                self.process.terminate()
                try:
                    self.process.wait(10)
                except subprocess.TimeoutExpired:
                    self.process.kill()
            self.process.wait()
            self.process = None
        for pid in self.processes():  # an awaited one that nobody met
            ForeignProcess(pid).kill()
        if self.memory:
            self.memory.close()
            self.memory = None
        for path in self.memory_files:
            Path(path).unlink(missing_ok=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """As a crash: SIGKILL, without clean-up (that is for stop)."""
        self.process.kill()
        self.process.wait()

    def is_running(self):
        """Whether QEMU lives and its guest runs."""
        try:
            return self.process.poll() is None and self.qmp.status() == "running"
        except QmpClosed:
            return False

    # What follows is for the test guest.

    def counters(self):
        return mailbox.read_counters(self.memory)

    def parameters(self):
        return mailbox.read_parameters(self.memory)

    def wait_running(self, seconds=120.0):
        """Until the test guest has filled its memory; returns its counters."""
        return self.wait_counters(lambda now: now["state"] == mailbox.RUNNING, "the test guest to run",
                                  seconds)

    def wait_counters(self, condition, what, seconds=60.0):
        """Until condition(counters) holds; returns these counters."""

        def attempt():
            if self.process.poll() is not None:
                raise RuntimeError(f"QEMU {self.name} has ended: {self.log.read_text()}")
            try:
                now = self.counters()
            except mailbox.NotReady:
                return None
            if now["state"] == mailbox.REFUSED:
                raise RuntimeError(f"the test guest refused its parameters, reason {now['refusal']}")
            return now if condition(now) else None

        return wait_until(attempt, what, seconds)

    def wait_sweeps(self, sweeps=2, seconds=120.0):
        """Until the guest has checked all its memory `sweeps` more times. Two make one whole from now on."""
        start = self.counters()["sweeps"]
        return self.wait_counters(lambda now: now["sweeps"] >= start + sweeps, f"{sweeps} sweeps", seconds)

    def _memory_arguments(self, machine, sizes, smp):
        arguments = ["-m", f"{sum(sizes)}M", "-smp", str(smp)]
        for i, (size, path) in enumerate(zip(sizes, self.memory_files)):
            arguments += ["-object",
                          f"memory-backend-file,id=ram{i},size={size}M,share=on,mem-path={path}"]
        if len(sizes) == 1:
            return arguments + ["-machine", f"{machine},memory-backend=ram0"]
        arguments += ["-machine", machine]
        for i in range(len(sizes)):
            cpus = f"{i}" if i + 1 < len(sizes) else f"{i}-{smp - 1}"
            arguments += ["-numa", f"node,nodeid={i},cpus={cpus},memdev=ram{i}"]
        return arguments

    @staticmethod
    def _port_arguments(port, target):
        if target is None:
            return []
        backend = f"file,path={target[5:]}" if str(target).startswith("file:") else f"socket,path={target}"
        device = {"serial": "isa-serial", "debugcon": "isa-debugcon,iobase=0xe9"}[port]
        return ["-chardev", f"{backend},id={port}0", "-device", f"{device},chardev={port}0"]


def processes_with(text):
    """The PIDs of the QEMUs and Ramferries that have `text` in their command line."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        if text in command and (name.startswith("qemu-system") or name == "ramferry"):
            found.append(int(pid))
    return found


def peer_of(socket_path):
    """The PID of the process that listens on a unix socket of QEMU's."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(socket_path))
        pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return pid


class ForeignProcess:
    """What of subprocess.Popen the harness needs, for a process that is not this one's child."""

    def __init__(self, pid):
        self.pid = pid
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:
            self._fd = None

    def __del__(self):
        if self._fd is not None:
            os.close(self._fd)

    def poll(self):
        """None while it lives, else 0: only its parent learns its exit code."""
        return 0 if self._fd is None or select.select([self._fd], [], [], 0)[0] else None

    def wait(self, timeout=30.0):
        if self._fd is not None and not select.select([self._fd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return 0

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number):
        if self.poll() is None:
            try:
                signal.pidfd_send_signal(self._fd, number)
            except ProcessLookupError:
                pass


def migrate_by_qemu(source, destination, seconds=120.0, capabilities=()):
    """QEMU's own migration between two harness QEMUs, over a unix socket; the destination then runs.

    Beware of `-accel tcg` with a running source: QEMU 7.2 then loses pages that the guest writes meanwhile
    (its dirty bitmap is cleared without resetting the emulator's TLB). Source and destination memory differ
    in a hundred pages for a busy guest of 8 MiB; stopped guests, and KVM, are right.
    """
    uri = f"unix:{destination._directory}/migration"
    wanted = [{"capability": name, "state": True} for name in ("events",) + tuple(capabilities)]
    for qemu in (source, destination):
        qemu.qmp.execute("migrate-set-capabilities", capabilities=wanted)
    source.qmp.execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
    destination.qmp.execute("migrate-incoming", uri=uri)
    source.qmp.execute("migrate", uri=uri)
    event = source.qmp.wait_event("MIGRATION", lambda data: data["status"] in ("completed", "failed"),
                                  seconds)
    if event["data"]["status"] == "failed":
        raise RuntimeError(f"QEMU's migration failed: {source.qmp.execute('query-migrate')}")
    destination.qmp.wait_event("MIGRATION", lambda data: data["status"] == "completed", seconds)
    destination.qmp.execute("cont")
