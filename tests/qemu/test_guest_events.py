"""A guest that resets, shuts down or is changed while it is being moved, and a QEMU that stops answering."""
import signal

import pytest

from tests.harness import leaks
from tests.harness.deadline import wait_until
from .guests import assert_gone, assert_untouched, source_and_target
from .test_broken_off import SLOW, wait_precopy

GUEST = "fill_mib=24 wss_mib=1 rate=100"


def test_guest_that_resets_while_it_is_copied_boots_on_and_arrives_whole(site):
    with source_and_target(GUEST) as (source, target):
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            before = source.counters()
            source.qmp.execute("system_reset")
            source.wait_counters(lambda now: now["ticks"] < before["ticks"], "the guest to begin anew")
            result = moving.wait(120)
        assert result.exit_code == 0, result.stderr
        target.arrive()
        target.wait_running()
        assert target.wait_sweeps(2)["bad"] == 0


@pytest.mark.parametrize("arguments", [["-no-reboot"], ["-no-reboot", "-no-shutdown"]],
                         ids=["its QEMU ends", "its QEMU stays"])
def test_guest_that_shuts_down_while_it_is_copied_stays_shut_down(site, arguments):
    with source_and_target(GUEST, extra=arguments) as (source, target):
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            source.qmp.execute("system_reset")  # -no-reboot makes it a shutdown
            result = moving.wait(60)
            assert result.exit_code == 4 and result.report["outcome"] == "rolled-back", result.stderr
            assert_gone(target)
        if "-no-shutdown" in arguments:
            assert "'shutdown'" in result.report["error"]
            assert source.qmp.status() == "shutdown"
            assert leaks.uffd_mappings(source.pid) == {}
        else:
            assert "has it ended?" in result.report["error"]
            assert source.process.wait(10) is not None
        wait_until(lambda: not site.leftovers_in_journals(), "clean journals", seconds=10)


def test_guest_that_gets_another_device_while_it_is_copied_stays(site):
    with source_and_target(GUEST, extra=["-device", "pcie-root-port,id=port1,chassis=1"]) as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            source.qmp.execute("device_add", driver="virtio-rng-pci", bus="port1", id="plugged")
            result = moving.wait(60)
            assert result.exit_code == 4, result.stderr
            assert "could not load the guest's devices" in result.report["error"]
            assert_untouched(source, before)
            assert_gone(target)
        names = [entry["name"] for entry in source.qmp.execute("qom-list", path="/machine/peripheral")]
        assert "plugged" in names
        wait_until(lambda: not site.leftovers_in_journals(), "clean journals", seconds=10)


def test_guest_whose_disk_gets_a_snapshot_while_it_is_copied_stays(site, tmp_path):
    """The destination has the disk open as it was, without what the guest writes from now on."""
    disk, overlay = tmp_path / "disk.raw", tmp_path / "overlay.qcow2"
    disk.write_bytes(bytes(1 << 20))
    with source_and_target(GUEST, extra=["-drive", f"if=none,id=disk0,file={disk},format=raw",
                                         "-device", "virtio-blk-pci,drive=disk0,share-rw=on"]) as (source, target):
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            source.qmp.execute("blockdev-snapshot-sync", **{"device": "disk0", "snapshot-file": str(overlay)})
            result = moving.wait(60)
            assert result.exit_code == 4, result.stderr
            assert "disks changed during its migration" in result.report["error"]
            assert source.qmp.status() == "running" and leaks.uffd_mappings(source.pid) == {}
            assert_gone(target)
        wait_until(lambda: not site.leftovers_in_journals(), "clean journals", seconds=10)


def test_qemu_that_stops_answering_while_its_guest_is_copied_is_let_go(site):
    with source_and_target(GUEST) as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            source.process.send_signal(signal.SIGSTOP)
            result = moving.wait(90)
            source.process.send_signal(signal.SIGCONT)
            assert result.exit_code == 4 and "did not answer" in result.report["error"], result.stderr
            assert_gone(target)
        assert site.leftovers_in_journals() == []  # nothing had been asked of it yet
        assert_untouched(source, before)
