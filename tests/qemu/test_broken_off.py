"""A migration that is cancelled, or that fails, in any stage leaves the source as it was; the next one succeeds."""
import signal
import socket
import time

import pytest

from tests.harness import leaks
from tests.harness.deadline import wait_until
from tests.harness.qemu import ForeignProcess, Qemu, TESTGUEST
from tests.harness.site import blocks_of, free_port
from .guests import BUSY, assert_gone, assert_moved, assert_untouched, source_and_target

SLOW = ("--bandwidth", "8")  # pre-copy of BUSY lasts 6 s


def wait_precopy(source, target):
    """Until tracking is on and pages have landed in the destination's memory."""
    wait_until(lambda: leaks.uffd_mappings(source.pid), "dirty tracking to be on")
    wait_until(lambda: blocks_of(target.memory_files[0]) > 1 << 20, "pages to land")


def wait_stopped(source):
    wait_until(lambda: source.qmp.status() != "running", "the guest to be stopped")


def assert_next_attempt_succeeds(site, source, target):
    before = source.counters()
    with site.receiver(target) as receiver:
        result = site.migrate(source, receiver)
    assert_moved(result, source, target, before)


def slow_start(target, seconds=3):
    """The target's definition, with a QEMU that takes its time to start."""
    wait = f"""argv = ["/bin/sh", "-c", 'sleep {seconds}; exec "$@"', "sh", """
    return target.definition().replace("argv = [", wait)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGHUP, 130)],
                         ids=["SIGINT", "SIGTERM", "SIGHUP"])
def test_cancelled_while_copying_the_source_runs_as_before(site, number, code):
    with source_and_target() as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            moving.process.send_signal(number)
            result = moving.wait(20)
            assert result.exit_code == code and result.report["outcome"] == "rolled-back"
            assert_untouched(source, before)
            assert_gone(target)
            wait_until(lambda: not site.leftovers_in_journals(), "clean journals", seconds=10)
        assert_next_attempt_succeeds(site, source, target)


def test_cancelled_while_the_destination_reserves_the_source_runs_as_before(site):
    with source_and_target() as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(slow_start(target)) as receiver:
            moving = site.start_migrate(source, receiver)
            wait_until(lambda: (site.runtime_directory("destination") / "guest.log").exists(), "the reservation")
            moving.process.send_signal(signal.SIGINT)
            result = moving.wait(10)
            assert result.exit_code == 130
            assert_untouched(source, before)
            assert_gone(target)
            wait_until(lambda: not site.leftovers_in_journals(), "clean journals", seconds=10)
        assert_next_attempt_succeeds(site, source, target)


def test_cancelled_while_the_destination_does_not_answer_nothing_was_touched(site):
    with Qemu("guest", kernel=TESTGUEST, append=BUSY) as source, socket.create_server(("127.0.0.1", 0)) as deaf:
        source.wait_running()
        before = leaks.snapshot(source)

        class Deaf:
            port = deaf.getsockname()[1]

        moving = site.start_migrate(source, Deaf)
        connection, _ = deaf.accept()
        with connection:
            moving.process.send_signal(signal.SIGINT)
            result = moving.wait(60)
        assert result.exit_code == 130 and "before anything was touched" in result.stderr, result.stderr
        assert_untouched(source, before)


def freeze_destination_while_copying(source, target):
    """Stops the destination's QEMU: pages still land, but it will not load the devices."""
    wait_precopy(source, target)
    frozen = ForeignProcess(target.processes()[0])
    frozen.send_signal(signal.SIGSTOP)
    return frozen


@pytest.mark.parametrize("what", ["cancelled", "destination's QEMU killed", "ramferry receive killed"])
def test_broken_off_while_the_guest_is_stopped_the_source_runs_as_before(site, what):
    with source_and_target("fill_mib=24 wss_mib=1 rate=100") as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            frozen = freeze_destination_while_copying(source, target)
            wait_stopped(source)
            assert moving.process.poll() is None
            if what == "cancelled":
                moving.process.send_signal(signal.SIGINT)
            elif what == "ramferry receive killed":
                receiver.process.kill()
            else:
                frozen.kill()
            result = moving.wait(30)
            assert result.exit_code == (130 if what == "cancelled" else 4), result.stderr
            assert result.report["outcome"] == "rolled-back" and result.report["error"]
            assert_untouched(source, before)
            frozen.send_signal(signal.SIGCONT)
        if what == "ramferry receive killed":
            with site.receiver(target):  # the next one finds what the killed one left
                assert_gone(target)
        assert_gone(target)
        assert_next_attempt_succeeds(site, source, target)


def test_destination_killed_while_copying_the_source_runs_as_before(site):
    with source_and_target() as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            receiver.process.kill()
            result = moving.wait(30)
            assert result.exit_code == 4 and result.report["outcome"] == "rolled-back"
            assert_untouched(source, before)
        assert target.processes() != []  # nobody was left to end it ...
        with site.receiver(target):  # ... but the next one finds it in its journal
            assert_gone(target)
        assert_next_attempt_succeeds(site, source, target)


def test_destination_stopped_by_its_operator_while_copying_the_source_runs_as_before(site):
    with source_and_target() as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            receiver.process.terminate()
            result = moving.wait(30)
            assert result.exit_code == 4 and "was stopped" in result.report["error"]
            assert_untouched(source, before)
            assert_gone(target)
            assert receiver.process.wait(30) == 0
        assert_next_attempt_succeeds(site, source, target)


def test_destinations_qemu_killed_while_copying_the_source_runs_as_before(site):
    with source_and_target() as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            ForeignProcess(target.processes()[0]).kill()
            result = moving.wait(30)
            assert result.exit_code == 4 and result.report["outcome"] == "rolled-back"
            assert_untouched(source, before)
            assert_gone(target)
        assert_next_attempt_succeeds(site, source, target)


def test_destination_that_nobody_listens_on_is_named_and_nothing_is_touched(site):
    with Qemu("guest", kernel=TESTGUEST, append=BUSY) as source:
        source.wait_running()
        before = leaks.snapshot(source)

        class Nobody:
            port = free_port()

        started = time.monotonic()
        result = site.migrate(source, Nobody)
        assert time.monotonic() - started < 30
        assert result.exit_code == 1 and str(Nobody.port) in result.stderr
        assert_untouched(source, before)


def test_guest_that_does_not_converge_stays_unless_told_otherwise(site):
    with source_and_target("fill_mib=48 wss_mib=48 rate=0") as (source, target):
        before = leaks.snapshot(source)
        limits = ("--bandwidth", "48", "--downtime", "1", "--max-rounds", "2")
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, *limits)
            assert result.exit_code == 4 and "does not converge" in result.report["error"]
            assert len(result.report["rounds"]) == 2
            assert_untouched(source, before)
            assert_gone(target)
            counters = source.counters()
            result = site.migrate(source, receiver, *limits, "--if-not-converging", "stop")
        assert_moved(result, source, target, counters)


def test_guest_paused_by_its_owner_does_not_run_after_a_broken_switch_over(site):
    with source_and_target("fill_mib=24 wss_mib=1 rate=100") as (source, target):
        source.qmp.execute("stop")
        before = source.counters()
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            frozen = freeze_destination_while_copying(source, target)
            wait_until(lambda: source.qmp.status() == "postmigrate", "the devices to be saved")
            frozen.kill()
            assert moving.wait(30).exit_code == 4
            assert not source.is_running() and source.counters() == before
            assert_gone(target)
            # QEMU itself now looks as if the guest had gone elsewhere: only its owner can know better.
            result = site.migrate(source, receiver)
            assert result.exit_code == 3 and "may run on another host" in result.stderr
        source.qmp.execute("cont")
        assert_next_attempt_succeeds(site, source, target)


def test_paused_guest_can_be_moved_after_a_cancelled_move(site):
    with source_and_target("fill_mib=24 wss_mib=1 rate=100") as (source, target):
        source.qmp.execute("stop")
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            moving.process.send_signal(signal.SIGINT)
            assert moving.wait(30).exit_code == 130
            assert_untouched(source, before)
            assert_gone(target)
            result = site.migrate(source, receiver)
        assert result.exit_code == 0, result.stderr
        target.arrive()
        assert target.qmp.status() == "paused"
