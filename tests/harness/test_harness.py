"""The tests' own tools keep their promises: run first, or every other end-to-end result is worth nothing."""
from pathlib import Path

import pytest

from tests.guests.testguest import mailbox
from tests.harness import leaks, ramferry
from tests.harness.memory import touched_bytes
from tests.harness.qemu import TESTGUEST, Qemu, kvm_works, migrate_by_qemu
from tests.harness.ticks import TickObserver

# KVM may itself be emulated, instruction by instruction: little memory, few ticks.
SMALL = "fill_mib=4 wss_mib=2 rate=100 tick_us=10000"


def accelerators():
    kvm = pytest.param("kvm", marks=pytest.mark.skipif(not kvm_works(), reason="no usable /dev/kvm here"))
    return ["tcg", kvm]


@pytest.mark.parametrize("accel", accelerators())
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_guest_boots_ticks_and_finds_no_bad_page(machine, accel):
    with TickObserver() as observer, \
         Qemu("guest", kernel=TESTGUEST, append=SMALL, machine=machine, accel=accel,
              serial=observer.listen("guest")) as guest:
        guest.wait_running()
        counters = guest.wait_sweeps(2)
        assert counters["bad"] == 0
        assert counters["filled_pages"] == 4 * 256
        assert counters["work"] > 0
        guest.wait_counters(lambda now: now["ticks"] >= counters["ticks"] + 20, "more ticks")
        guest.qmp.execute("stop")
        summary = observer.summary()
        assert summary.count > 20 and summary.lost == 0 and summary.repeated == 0
        assert "ramferry testguest" in observer.text("guest")


@pytest.mark.parametrize("where", [0, 4, 8, 2048, 4092])
def test_corrupted_page_is_reported(where):
    with Qemu("guest", kernel=TESTGUEST, append="fill_mib=16 wss_mib=4 rate=1") as guest:
        assert guest.wait_running()["bad"] == 0
        page = 2222  # outside the working set: only the sweep can find it
        guest.memory.write(mailbox.FILL_START + page * 4096 + where, b"\xde\xad\xbe\xef")
        counters = guest.wait_sweeps(2)
        assert counters["bad"] == 1
        assert counters["first_bad_page"] == page
        assert counters["first_bad_word"] == where // 4
        assert counters["first_bad_found"] == 0xefbeadde


def test_stale_page_is_reported():
    with Qemu("guest", kernel=TESTGUEST,
              append="fill_mib=16 wss_mib=1 rate=0 pattern=sequential tick_port=none") as guest:
        guest.wait_running()
        address = mailbox.FILL_START + 100 * 4096
        guest.qmp.execute("stop")
        old = guest.memory.read(address, 4096)
        guest.qmp.execute("cont")
        work = guest.counters()["work"]
        guest.wait_counters(lambda now: now["work"] > work + 1024, "the working set to be rewritten")
        guest.qmp.execute("stop")
        assert guest.memory.read(address, 4096) != old
        guest.memory.write(address, old)
        guest.qmp.execute("cont")
        counters = guest.wait_sweeps(2)
        assert counters["bad"] == 1
        assert counters["first_bad_stamp_page"] == counters["first_bad_page"] == 100
        assert counters["first_bad_stamp_generation"] < counters["first_bad_generation"]


def test_zeroed_pages_are_checked_too():
    with Qemu("guest", kernel=TESTGUEST,
              append="fill_mib=16 wss_mib=16 rate=0 zero_pct=100 pattern=sequential") as guest:
        guest.wait_running()
        guest.wait_counters(lambda now: now["work_zeroed"] >= 4096, "all pages to be zeroed")
        assert guest.memory.read(mailbox.FILL_START + 77 * 4096, 4096) == bytes(4096)
        guest.memory.write(mailbox.FILL_START + 77 * 4096 + 1000, b"\1")
        counters = guest.wait_sweeps(2)
        assert counters["bad"] == 1 and counters["first_bad_page"] == 77


@pytest.mark.parametrize("append", ["fill_mib=400", "fill_mib=1 wss_mib=2", "no_such=1", "idle=no", "rate="])
def test_guest_refuses_parameters_that_it_cannot_meet(append):
    with Qemu("guest", kernel=TESTGUEST, append=append) as guest:
        with pytest.raises(RuntimeError, match="refused"):
            guest.wait_running()


def test_halting_guest_keeps_ticking_and_working():
    with TickObserver() as observer, \
         Qemu("guest", kernel=TESTGUEST, debugcon=observer.listen("guest"),
              append="fill_mib=16 wss_mib=4 rate=500 check_rate=20000 tick_port=debugcon idle=halt") as guest:
        guest.wait_running()
        counters = guest.wait_sweeps(2)
        guest.wait_counters(lambda now: now["ticks"] >= counters["ticks"] + 100, "ticks")
        assert counters["bad"] == 0 and counters["work"] > 0
        assert observer.summary().count >= 100


def test_guest_with_two_backends_uses_both():
    with Qemu("guest", kernel=TESTGUEST, append="fill_mib=150 wss_mib=4 rate=100",
              memory_mib=[128, 128], smp=2) as guest:
        guest.wait_running()
        assert guest.wait_sweeps(2)["bad"] == 0
        assert touched_bytes(guest.memory_files[1:]) >= 38 << 20


@pytest.mark.parametrize("accel", accelerators())
def test_qemus_own_migration_keeps_every_page_and_tick(accel):
    with TickObserver() as observer:
        common = dict(kernel=TESTGUEST, append=SMALL + " zero_pct=30", accel=accel)
        with Qemu("source", serial=observer.listen("source"), **common) as source, \
             Qemu("target", serial=observer.listen("target"), incoming=True, **common) as target:
            source.wait_running()
            if accel == "tcg":  # see migrate_by_qemu: live, it would lose pages
                source.qmp.execute("stop")
            migrate_by_qemu(source, target)
            before = source.counters()
            after = target.wait_sweeps(2)
            assert not source.is_running() and target.is_running()
            assert after["bad"] == 0
            target.wait_counters(lambda now: now["ticks"] > before["ticks"] and now["work"] > before["work"],
                                 "the guest to go on from where it was")
            summary = observer.summary()
            assert summary.switches == 1 and summary.lost == 0 and summary.repeated == 0
            assert summary.largest_gap_ms > 0


def test_leaks_show_what_a_visitor_left_behind(tmp_path):
    with Qemu("guest", kernel=TESTGUEST, append=SMALL) as guest:
        before = leaks.snapshot(guest)
        assert leaks.differences(before, leaks.snapshot(guest)) == []
        guest.qmp.execute("migrate-set-capabilities",
                          capabilities=[{"capability": "events", "state": True}])
        guest.qmp.execute("chardev-add", id="left",
                          backend={"type": "file", "data": {"out": str(tmp_path / "left")}})
        found = "\n".join(leaks.differences(before, leaks.snapshot(guest)))
        assert "events" in found and "left" in found


def test_nothing_is_left_of_a_stopped_qemu():
    with Qemu("guest", kernel=TESTGUEST, append=SMALL) as guest:
        files = [Path(path) for path in [guest.log] + guest.memory_files]
        process = guest.process
        assert all(path.exists() for path in files)
    assert process.poll() is not None
    assert not any(path.exists() for path in files)


def test_ramferry_wrapper_runs_the_command_line(tmp_path, monkeypatch):
    program = tmp_path / "ramferry"
    program.write_text("""#!/bin/sh
case "$1" in
  receive) grep -q hello "$3" && echo listening && exec sleep 1000 ;;
  migrate) echo "{\\"from\\": \\"$2\\", \\"to\\": \\"$3\\"}" >"$5"; echo moved; exit 3 ;;
  certs) exit 1 ;;
esac
""")
    program.chmod(0o755)
    monkeypatch.setenv("RAMFERRY", str(program))
    with ramferry.Receiver("hello") as receiver:
        process = receiver.process
        assert "listening" in receiver.log
        result = ramferry.migrate("/tmp/guest.qmp", "there:1")
        assert (result.exit_code, result.stdout) == (3, "moved\n")
        assert result.report == {"from": "/tmp/guest.qmp", "to": "there:1"}
    assert process.poll() is not None
    with pytest.raises(RuntimeError, match="ended at once"):
        ramferry.Receiver("no greeting").__enter__()
    with pytest.raises(RuntimeError, match="certs"):
        ramferry.make_certificates(tmp_path)
