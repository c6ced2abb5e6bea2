"""A guest that moves to and fro between two hosts while things go wrong, and the judgement afterwards.

    with Network() as network, World(directory, certificates, network) as world:
        attempt = world.begin(stop=("destination", "after:holding"))
        attempt.wait_stopped()
        attempt.destination.kill()
        world.end(attempt)        # restarts, resolves, and asserts that one guest runs, whole
        world.move()              # a second attempt succeeds

A process is stopped at a moment that matters by RAMFERRY_TEST_STOP (engine/journal.cc): there it waits for the
fault. Both hosts are network namespaces; their journals are on small file systems that can be filled.
"""
import contextlib
import errno
import json
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

from tests.harness import leaks, ramferry
from tests.harness.deadline import TimedOut, wait_until
from tests.harness.qemu import TESTGUEST, Qemu, processes_with
from tests.harness.qmp import QmpClosed
from tests.harness.site import HOSTS, Site
from tests.harness.ticks import TickObserver

APPEND = "fill_mib=32 wss_mib=4 rate=500"
# Shorter patience than the defaults: what is tested is the end of it.
SOURCE_CONFIG = "[migrate]\nanswer_s = 12\nsettle_s = 2\n"
SETTLED = ("activated", "released")


def _run(*arguments):
    subprocess.run(arguments, check=True, capture_output=True)


@contextlib.contextmanager
def _environment(name, value):
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def _state_of(pid):
    """The letter of proc(5): T is stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return None


def _zombies_of(parent):
    """The PIDs of its children that have ended and that it has not taken note of."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid, rest = path.read_text().split(" ", 1)
            state, owner = rest.rsplit(")", 1)[1].split()[:2]
            if state == "Z" and int(owner) == parent:
                found.append(int(pid))
    return found


class Host:
    """One of the two: its namespace, its journal on a small file system, its ramferries."""

    def __init__(self, name, namespace, site):
        self.name = name
        self.namespace = namespace
        self.site = site
        self.state = site.state_directory(name)
        self.state.mkdir(mode=0o700)
        _run("mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "journal", str(self.state))

    def close(self):
        _run("umount", "-l", str(self.state))

    def fill_disk(self):
        with open(self.state / "ballast", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError as error:
                assert error.errno == errno.ENOSPC

    def free_disk(self):
        (self.state / "ballast").unlink(missing_ok=True)

    def journal(self):
        """The entries, oldest first."""
        entries = []
        for path in sorted(self.state.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):
                entries.append(json.loads(path.read_text()))
        return entries

    def reboot(self):
        """As far as a journal can see: it is of another boot. All processes of the host must have ended."""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        for path in self.state.glob("*.json"):
            path.write_text(path.read_text().replace(boot, str(uuid.UUID(int=0))))

    def resolve(self, entry, *arguments):
        return ramferry.run("resolve", entry["migration_id"], *arguments, *self.site.identity(self.name),
                            netns=self.namespace.name)


class Attempt:
    """One `migrate` to one `receive`. `source` and `destination` are their processes (subprocess.Popen)."""

    def __init__(self, world, target, stop, arguments):
        self.world = world
        self.arguments = arguments
        self.home = world.host
        self.away = world.other()
        self.guest = world.guest
        self.target = target
        self.stop = stop or ("", None)
        self.source_qemu_killed = self.destination_qemu_killed = False  # by faults.py
        self.destination_ends = False  # `receive` was told to end
        self.result = None             # of `migrate`, once it has ended
        self.resets = None             # how many connections faults.py has reset
        self.started = time.monotonic()
        self.receiver = None
        self.listen("destination" == self.stop[0])
        with _environment("RAMFERRY_TEST_STOP", self.stop[1] if self.stop[0] == "source" else None):
            self.migrate = ramferry.MigrateProcess(
                f"qemu:{self.guest.ramferry_socket}", self.away.namespace.address,
                [*world.site.identity(self.home.name), "--config", world.source_config(self.home), *arguments],
                netns=self.home.namespace.name)
        self.source = self.migrate.process

    def listen(self, stopping=False):
        """(Re)starts `receive`, on the same port as ever."""
        site = self.world.site
        flags = ["--guest", site.define(self.target.definition()), *site.identity(self.away.name),
                 "--runtime-dir", site.runtime_directory(self.away.name), *self.arguments]
        self.receiver = ramferry.Receiver(self.world.configs.get(self.away.name, ""), flags, netns=self.away.namespace.name)
        with _environment("RAMFERRY_TEST_STOP", self.stop[1] if stopping else None):
            self.receiver.__enter__()
        self.destination = self.receiver.process

    def wait_stopped(self):
        process = {"source": self.source, "destination": self.destination}[self.stop[0]]
        wait_until(lambda: _state_of(process.pid) == "T" or self.source.poll() is not None,
                   f"{self.stop} to be reached")
        if self.source.poll() is not None:
            raise AssertionError(f"migrate ended before {self.stop}: {self.migrate.wait()} {self.receiver.log}")

    def go_on(self):
        for process in (self.source, self.destination):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)


class World:
    def __init__(self, directory, certificates, network, append=APPEND, configs=None):
        """configs: more configuration for a host, by its name."""
        self.site = Site(directory, certificates)
        self.network = network
        self.append = append
        self.configs = configs or {}
        self.hosts = [Host(name, namespace, self.site)
                      for name, namespace in zip(HOSTS, (network.source, network.destination))]
        self.host = self.hosts[0]
        self.guest = None
        self.moves = 0      # that succeeded
        self.attempts = 0
        self._qemus = []
        self._names = {}
        self.observer = TickObserver()
        self.boot()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for qemu in self._qemus:
            qemu.stop()
        for pid in processes_with(str(self.site.directory)):  # only what this test started has its path
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.observer.close()
        for host in self.hosts:
            host.close()

    def source_config(self, host):
        path = self.site.directory / f"{host.name}.toml"
        path.write_text(SOURCE_CONFIG + self.configs.get(host.name, ""))
        return path

    def other(self):
        return self.hosts[1] if self.host is self.hosts[0] else self.hosts[0]

    def _qemu(self, **keywords):
        name = f"qemu{len(self._names)}"
        qemu = Qemu("guest", kernel=TESTGUEST, append=self.append, memory_mib=64,
                    serial=self.observer.listen(name), **keywords)
        self._names[qemu] = name
        self._qemus.append(qemu)
        return qemu

    def boot(self):
        """A new guest, on the host that is the source now."""
        self.guest = self._qemu()
        self.guest.start().wait_running()
        self.before = leaks.snapshot(self.guest)

    def begin(self, stop=None, arguments=()):
        """Starts a move. stop: (side, moment) for RAMFERRY_TEST_STOP. arguments: for both sides."""
        self.attempts += 1
        self.counters = self.guest.counters()
        return Attempt(self, self._qemu(awaited=True), stop, arguments)

    # Faults that are not plain kills.

    def drop(self):
        """From now on all packets between the hosts vanish."""
        self.network.separate()

    def heal(self):
        self.network.separate(False)

    # The judgement.

    def end(self, attempt):
        """Whatever happened: lets it end, settles it as an administrator would, asserts who runs the guest.

        Returns "moved", "stayed", or "lost" (the QEMU that the guest ran in was killed, nothing else).
        """
        attempt.go_on()
        result = attempt.result = attempt.migrate.wait(90)
        self.heal()
        for host in self.hosts:
            host.free_disk()
        if attempt.destination_ends:
            attempt.destination.wait(60)
        if attempt.destination.poll() is not None:
            attempt.receiver.__exit__()
            attempt.listen()
        log = lambda: f"\nmigrate: {result.exit_code} {result.stderr}\nreceive: {attempt.receiver.log}"
        try:
            self._settle(attempt)
            outcome = self._judge(attempt, result.exit_code)
        except AssertionError as error:
            raise AssertionError(f"{error}{log()}") from error
        zombies = _zombies_of(attempt.destination.pid)
        assert not zombies, f"the destination did not see the end of processes {zombies}{log()}"
        attempt.receiver.__exit__()
        self.observer.forget()
        if outcome == "moved":
            self.moves += 1
            self._forget(self.guest)
            self.guest, self.host = attempt.target, attempt.away
            self.before = leaks.snapshot(self.guest)
        else:
            # Of a guest that crashed while it ran there, its memory file is left, as of any that crashes.
            left = [] if self._ran(attempt.target) else [
                path for path in attempt.target.memory_files if os.path.exists(path)]
            self._forget(attempt.target)
            assert not left, f"memory files are left: {left}{log()}"
        if outcome == "lost":
            self._forget(self.guest)
            self.boot()
        return outcome

    @staticmethod
    def _runs(target):
        """Whether the guest runs in that awaited QEMU, which may end at this moment."""
        try:
            return (target.process is not None or bool(target.processes() and target.arrive(2))) and target.is_running()
        except (QmpClosed, TimedOut, OSError):
            return False

    def _ran(self, qemu):
        """Whether the guest has ever run in it."""
        return self._names[qemu] in self.observer.senders()

    def _settle(self, attempt):
        """`ramferry resolve` on the source until nothing is open; on the destination where it must be a person."""
        said = ""
        end = time.monotonic() + 60
        while True:
            open_here = [entry for entry in attempt.home.journal() if entry["role"] == "source"]
            open_there = [entry for entry in attempt.away.journal() if entry["phase"] not in SETTLED]
            if not open_here and not open_there:
                return
            assert time.monotonic() < end, f"not settled: {open_here} {open_there} {said}"
            for entry in open_there:
                if entry["phase"] == "activating" and not attempt.target.processes():
                    said = attempt.away.resolve(entry, "--discard-here")
            for entry in open_here:
                said = attempt.home.resolve(entry)
            time.sleep(0.1)

    def _judge(self, attempt, exit_code):
        # One that the guest did not come to is ended by `receive`, if need be when the source is known to be gone.
        wait_until(lambda: not attempt.target.processes() or self._runs(attempt.target),
                   "the target to run the guest or to go", 30)
        here = self.guest.is_running()
        there = self._runs(attempt.target)
        assert not (here and there), "TWO RUN"
        senders = self.observer.senders()
        assert len(senders) == len(set(senders)), f"two guests ran by turns: {senders}"
        if not here and not there:
            ran_there = self._ran(attempt.target) or exit_code == 0
            assert attempt.source_qemu_killed or (attempt.destination_qemu_killed and ran_there), "NONE RUNS"
            return "lost"
        running = attempt.target if there else self.guest
        now = running.wait_sweeps(2)
        assert now["bad"] == 0, now
        assert now["work"] > self.counters["work"], "the guest went back in time"
        if there:
            assert self.guest.process.wait(10) is not None
            return "moved"
        assert not attempt.target.processes(), "the destination kept its QEMU"
        wait_until(lambda: not leaks.differences(self.before, leaks.snapshot(self.guest)),
                   f"the source to be as before: {leaks.differences(self.before, leaks.snapshot(self.guest))}", 5)
        return "stayed"

    def _forget(self, qemu):
        qemu.stop()
        self._qemus.remove(qemu)

    def move(self, arguments=()):
        """A move without trouble must succeed."""
        attempt = self.begin(arguments=arguments)
        result = attempt.migrate.wait(90)
        assert result.exit_code == 0, f"{result.stderr}\n{attempt.receiver.log}"
        assert self.end(attempt) == "moved"
        return result

    def assert_clean(self):
        """After a plain move in each direction no trace is left of what went before."""
        self.move()
        self.move()
        wait_until(lambda: not any(host.journal() for host in self.hosts),
                   f"empty journals: {[host.journal() for host in self.hosts]}", 10)
        others = set(processes_with(str(self.site.directory))) - {self.guest.pid}
        assert not others, f"processes are left: {others}"
