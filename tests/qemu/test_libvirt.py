"""A guest that libvirt started, with the lines that docs/operating.md gives for it, leaves libvirt's host.

libvirtd runs as another user, in session mode, so that nothing of this host's own libvirt is touched.
"""
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.harness import memory
from tests.harness.deadline import wait_until
from tests.harness.qemu import ROOT, TESTGUEST, Qemu
from tests.guests.testguest import mailbox

NOBODY = 65534
APPEND = "fill_mib=8 wss_mib=1 rate=100 tick_port=none"
DOMAIN = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>guest</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  {memory}
  <os><type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{directory}/testguest.elf</kernel><cmdline>{append}</cmdline></os>
  <devices>
    <emulator>{qemu}</emulator>
    <memballoon model='none'/>
    <controller type='usb' model='none'/>
  </devices>
  {monitor}
</domain>
"""


def documented(start, end):
    """The lines of the operating guide from one that begins with `start` to the next that ends with `end`."""
    text = (ROOT / "docs/operating.md").read_text()
    found = re.search(rf"^ +({re.escape(start)}.*?{re.escape(end)})$", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/operating.md has no {start}"
    return found[1]


class Libvirt:
    """A libvirtd of its own, as another user, in a directory of its own."""

    def __init__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="ramferry-libvirt-"))
        self.memory = self.directory / "memory"
        for name in ("run", "config/libvirt", "cache", "data", "memory"):
            (self.directory / name).mkdir(parents=True)
        (self.directory / "config/libvirt/qemu.conf").write_text(
            f'memory_backing_dir = "{self.memory}"\nstdio_handler = "file"\nsecurity_driver = "none"\n')
        shutil.copy(TESTGUEST, self.directory / "testguest.elf")
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        (self.directory / "run").chmod(0o700)
        self._daemon = self._start("libvirtd")
        wait_until(lambda: (self.directory / "run/libvirt/libvirt-sock").exists(), "libvirtd")

    def _command(self, *words):
        places = [f"XDG_{name}={self.directory}/{place}" for name, place in (
            ("RUNTIME_DIR", "run"), ("CONFIG_HOME", "config"), ("CACHE_HOME", "cache"), ("DATA_HOME", "data"))]
        return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--pdeathsig", "KILL",
                "env", "-i", f"PATH={os.environ['PATH']}:/usr/sbin", f"HOME={self.directory}", *places, *words]

    def _start(self, *words):
        with open(self.directory / "libvirtd.log", "wb") as log:
            return subprocess.Popen(self._command(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def virsh(self, *words):
        done = subprocess.run(self._command("virsh", "-c", "qemu:///session", *words), capture_output=True,
                              text=True, timeout=120)
        assert done.returncode == 0, done.stderr + (self.directory / "libvirtd.log").read_text()
        return done.stdout

    def close(self):
        try:
            if self.virsh("list", "--name").split():
                self.virsh("destroy", "guest")
        finally:
            self._daemon.terminate()
            self._daemon.wait(60)
            shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def libvirt():
    if not shutil.which("libvirtd", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("there is no libvirtd (libvirt-daemon, libvirt-daemon-driver-qemu, libvirt-clients)")
    daemon = Libvirt()
    yield daemon
    daemon.close()


class AsLibvirtsGuest(Qemu):
    """The destination's QEMU: the same machine, by its own command line."""

    def _memory_arguments(self, machine, sizes, smp):
        return ["-machine", "q35,usb=off,memory-backend=pc.ram", "-cpu", "qemu64", "-m", f"{sizes[0]}M", "-object",
                f"memory-backend-file,id=pc.ram,size={sizes[0]}M,share=on,mem-path={self.memory_files[0]},"
                "x-use-canonical-path-for-ramblock-id=false"]


def test_guest_of_libvirt_moves_with_the_documented_lines(site, libvirt):
    socket = libvirt.directory / "run/web1.qmp"
    domain = DOMAIN.format(
        memory=documented("<memoryBacking>", "</memoryBacking>"), append=APPEND, directory=libvirt.directory,
        monitor=documented("<qemu:commandline>", "</qemu:commandline>").replace("/run/web1.qmp", str(socket)),
        qemu=shutil.which("qemu-system-x86_64"))
    (libvirt.directory / "domain.xml").write_text(domain)
    libvirt.virsh("create", str(libvirt.directory / "domain.xml"))
    [file] = [path for path in libvirt.memory.rglob("*") if path.is_file()]

    class Source:
        ramferry_socket = str(socket)

    seen = memory.GuestMemory([str(file)])

    def state():
        try:
            return mailbox.read_counters(seen)["state"]
        except mailbox.NotReady:
            return None

    wait_until(lambda: state() == mailbox.RUNNING, "the test guest to run", 120)
    before = mailbox.read_counters(seen)["ticks"]
    seen.close()
    with AsLibvirtsGuest("guest", kernel=libvirt.directory / "testguest.elf", append=APPEND, awaited=True) as target:
        with site.receiver(target) as receiver:
            result = site.migrate(Source, receiver, "--verify")
            assert result.exit_code == 0 and result.report["verified"], result
            target.arrive()
            now = target.wait_counters(lambda now: now["ticks"] > before + 100, "the guest to go on")
            assert now["bad"] == 0
        wait_until(lambda: "guest" not in libvirt.virsh("list", "--all"), "libvirt to see its QEMU end")
