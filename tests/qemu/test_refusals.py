"""What cannot be moved is refused before anything is touched, with the reason and what to change."""
import socket
import subprocess
from types import SimpleNamespace

import pytest

from tests.harness import leaks, ramferry
from tests.harness.deadline import wait_until
from tests.harness.memory import touched_bytes
from tests.harness.qemu import TESTGUEST, Qemu
from .guests import assert_gone, assert_untouched, source_and_target

TINY = "fill_mib=2 wss_mib=1 rate=100 tick_port=none"



class OtherMemory(Qemu):
    """A guest whose main memory is another kind of backend."""

    def __init__(self, backend, **common):
        self._backend = backend
        super().__init__("guest", kernel=TESTGUEST, append=TINY, **common)

    def _memory_arguments(self, machine, sizes, smp):
        arguments = super()._memory_arguments(machine, sizes, smp)
        at = arguments.index("-object") + 1
        arguments[at] = self._backend.format(path=self.memory_files[0], size=sizes[0])
        return arguments


@pytest.mark.parametrize("backend, reason", [
    ("memory-backend-ram,id=ram0,size={size}M", "is a memory-backend-ram: use -object memory-backend-file"),
    ("memory-backend-memfd,id=ram0,size={size}M,share=on", "is a memory-backend-memfd: use -object"),
    ("memory-backend-file,id=ram0,size={size}M,share=off,mem-path={path}", "add share=on"),
], ids=["memory-backend-ram", "memfd", "share=off"])
def test_memory_that_nobody_else_can_map_is_refused(site, backend, reason):
    source = OtherMemory(backend)
    try:
        start_without_memory(source)
        with site.receiver(source_definition()) as receiver:
            result = site.migrate(source, receiver)
        assert result.exit_code == 3 and reason in result.stderr, result.stderr
        assert source.qmp.status() == "running"
        checked = site.check(source)
        assert checked.returncode == 3 and reason in checked.stdout
    finally:
        source.stop()


def start_without_memory(qemu):
    """Starts a QEMU whose memory file the harness cannot map."""
    for path in qemu.memory_files:
        with open(path, "ab") as file:
            file.truncate(256 << 20)
    qemu.start()


def source_definition():
    return 'name = "guest"\nargv = ["qemu-system-x86_64"]\n'


def test_guest_without_any_memory_backend_is_refused(site):
    class Plain(Qemu):
        def _memory_arguments(self, machine, sizes, smp):
            return ["-m", "256M", "-machine", machine]

    source = Plain("guest", kernel=TESTGUEST, append=TINY)
    try:
        start_without_memory(source)
        checked = site.check(source)
        assert checked.returncode == 3
        assert "is a memory-backend-ram: use -object memory-backend-file" in checked.stdout
    finally:
        source.stop()


@pytest.mark.parametrize("there, reasons", [
    ({"machine": "pc"}, ["machine type is pc-q35", "use -machine pc-q35"]),
    ({"memory_mib": 192}, ["memory backend 'ram0' has 201326592 bytes here but 268435456 on the source"]),
    ({"smp": 3}, ["1 vCPUs on the source but 3 here: use -smp 1"]),
    ({"extra": ["-cpu", "qemu64,-pni"]}, ["can do what this one cannot", "1.0.ECX=1)", "use the same -cpu"]),
    ({"memory_mib": [128, 128], "smp": 2}, ["more memory backends here", "use -smp 1"]),
    ({"machine": "pc", "smp": 2}, ["use -machine pc-q35", "use -smp 1"]),
], ids=["machine-type", "memory-size", "vcpus", "processor", "numa-nodes", "every-reason-at-once"])
def test_destination_that_differs_is_refused_with_every_reason(site, there, reasons):
    with Qemu("guest", kernel=TESTGUEST, append=TINY) as source, \
         Qemu("guest", kernel=TESTGUEST, append=TINY, awaited=True, **there) as target:
        source.wait_running()
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver)
            assert result.exit_code == 3, result.stderr
            for reason in reasons:
                assert reason in result.stderr
                assert reason in result.report["error"]
            assert result.report["outcome"] == "rolled-back" and result.report["rounds"] == []
            assert_untouched(source, before)
            assert_gone(target)


def test_guest_that_the_destination_has_no_definition_for_is_refused(site):
    with source_and_target(TINY) as (source, target):
        before = leaks.snapshot(source)
        definition = target.definition().replace('name = "guest"', 'name = "another"')
        with site.receiver(definition) as receiver:
            result = site.migrate(source, receiver)
        assert result.exit_code == 3 and "no guest definition named 'guest'" in result.stderr
        assert_untouched(source, before)
        assert_gone(target)


def test_disk_that_the_destination_does_not_share_is_refused(site, tmp_path):
    disks = [tmp_path / f"disk{i}.raw" for i in range(2)]
    for disk in disks:
        disk.write_bytes(bytes(1 << 20))
    drives = [["-drive", f"if=none,id=disk0,file={disk},format=raw", "-device", "virtio-blk-pci,drive=disk0"]
              for disk in disks]
    with Qemu("guest", kernel=TESTGUEST, append=TINY, extra=drives[0]) as source, \
         Qemu("guest", kernel=TESTGUEST, append=TINY, extra=drives[1], awaited=True) as target:
        source.wait_running()
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver)
        assert result.exit_code == 3 and "is not storage that both hosts share" in result.stderr
        assert str(disks[0]) in result.stderr and str(disks[1]) in result.stderr
        assert_untouched(source, before)
        assert_gone(target)


def test_memory_file_in_which_another_guest_lives_is_never_touched(site):
    """A definition that names the source's own file: starting its QEMU would write firmware over the guest."""
    with source_and_target(TINY) as (source, target):
        before = leaks.snapshot(source)
        definition = target.definition().replace(target.memory_files[0], source.memory_files[0])
        with site.receiver(definition) as receiver:
            result = site.migrate(source, receiver)
        assert result.exit_code == 3, result.stderr
        assert f"{source.memory_files[0]} belongs to another guest" in result.stderr
        assert f"process {source.pid})" in result.stderr
        assert_untouched(source, before)
        assert_gone(target)


def test_memory_of_another_guest_is_not_cleared_for_a_waiting_qemu(site):
    """Its own firmware is there already, by its operator's doing; nothing more is done to that memory."""
    with source_and_target(TINY) as (source, target):
        used = touched_bytes(source.memory_files)
        target.arguments = [word.replace(target.memory_files[0], source.memory_files[0])
                            for word in target.arguments] + ["-incoming", "defer", "-S"]
        target.memory_files = source.memory_files
        target.start()
        with site.receiver(qmp=target.ramferry_socket) as receiver:
            result = site.migrate(source, receiver)
        assert result.exit_code == 3 and "belongs to another guest" in result.stderr, result.stderr
        assert touched_bytes(source.memory_files) >= used


def test_destination_qemu_that_does_not_wait_for_a_guest_is_refused_and_lives(site):
    with Qemu("guest", kernel=TESTGUEST, append=TINY) as source, \
         Qemu("guest", kernel=TESTGUEST, append=TINY) as busy:
        source.wait_running()
        busy.wait_running()
        before = leaks.snapshot(source), leaks.snapshot(busy)
        with site.receiver(qmp=busy.ramferry_socket) as receiver:
            result = site.migrate(source, receiver)
        assert result.exit_code == 3 and "start it with -incoming defer" in result.stderr
        assert_untouched(source, before[0])
        assert_untouched(busy, before[1])


def test_guest_that_does_not_exist_is_named(site):
    class Missing:
        ramferry_socket = str(site.directory / "no-such.qmp")

    class Nobody:
        port = 9

    result = site.migrate(Missing, Nobody)
    assert result.exit_code == 1 and Missing.ramferry_socket in result.stderr
    checked = site.check(Missing)
    assert checked.returncode == 3 and Missing.ramferry_socket in checked.stdout


def test_qmp_socket_that_another_client_holds_is_a_clear_error_in_seconds(site):
    """QEMU serves one client a socket: a second waits. It must not wait for ever."""
    with Qemu("guest", kernel=TESTGUEST, append=TINY) as source, socket.socket(socket.AF_UNIX) as other:
        source.wait_running()
        other.connect(source.ramferry_socket)
        other.recv(100)
        checked = site.check(source)
        assert checked.returncode == 3 and source.ramferry_socket in checked.stdout


def test_direct_io_below_a_disk_is_seen(site, tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    drive = ["-blockdev", f"driver=file,node-name=file0,filename={disk},cache.direct=on",
             "-blockdev", "driver=raw,node-name=disk0,file=file0", "-device", "virtio-blk-pci,drive=disk0"]
    with Qemu("guest", kernel=TESTGUEST, append=TINY, extra=drive) as source:
        source.wait_running()
        assert "direct-I/O disk" in site.check(source).stdout


def test_check_finds_nothing_to_object_to_in_a_guest_that_can_be_moved(site):
    with Qemu("guest", kernel=TESTGUEST, append=TINY, smp=2) as source:
        source.wait_running()
        before = leaks.snapshot(source)
        checked = site.check(source)
        assert checked.returncode == 0, checked.stdout
        assert "2 vCPUs, 1 memory backend" in checked.stdout and "PROBLEM" not in checked.stdout
        assert_untouched(source, before)


def test_check_asks_the_destination_which_forgets_the_guest_again(site):
    with source_and_target(TINY) as (source, target), site.receiver(target) as receiver:
        before = leaks.snapshot(source)
        checked = site.check(source, receiver=receiver)
        assert checked.returncode == 0 and "would take it" in checked.stdout, checked.stdout
        wait_until(lambda: "no migration is under way" in site.status("destination"), "the reservation to be undone")
        assert_untouched(source, before)
        assert_gone(target)
        assert site.migrate(source, receiver).exit_code == 0


def test_check_tells_the_reasons_of_both_hosts(site):
    source = OtherMemory("memory-backend-ram,id=ram0,size={size}M")
    try:
        start_without_memory(source)
        with Qemu("guest", kernel=TESTGUEST, append=TINY, awaited=True, machine="pc", smp=2) as target, \
             site.receiver(target) as receiver:
            checked = site.check(source, receiver=receiver)
        assert checked.returncode == 3
        for reason in ("use -object memory-backend-file", "use -machine pc-q35", "use -smp 1"):
            assert reason in checked.stdout, checked.stdout
        assert source.qmp.status() == "running"
    finally:
        source.stop()


def test_check_says_that_nobody_listens_there(site):
    with Qemu("guest", kernel=TESTGUEST, append=TINY) as source, socket.socket() as unused:
        source.wait_running()
        unused.bind(("127.0.0.1", 0))
        checked = site.check(source, receiver=SimpleNamespace(port=unused.getsockname()[1]))
        assert checked.returncode == 3 and "PROBLEM  destination" in checked.stdout, checked.stdout


@pytest.mark.parametrize("capabilities, code, words", [
    ("-all", 3, "PROBLEM  rights                 neither root nor CAP_CHECKPOINT_RESTORE"),
    ("-all,+checkpoint_restore", 0, "ok       rights                 CAP_CHECKPOINT_RESTORE"),
], ids=["none", "enough"])
def test_check_knows_the_rights_that_it_has(site, capabilities, code, words):
    checked = subprocess.run(["setpriv", f"--bounding-set={capabilities}", ramferry.binary(), "check",
                              *site.identity("source")], capture_output=True, text=True, timeout=60)
    assert words in checked.stdout and checked.returncode == code, checked
