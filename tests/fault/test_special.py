"""Faults that need more steps than one: a frozen QEMU, a damaged journal entry, a cancellation that comes too late."""
import signal
from pathlib import Path

from tests.harness.deadline import wait_until
from tests.harness.qemu import ForeignProcess
from . import faults


def open_entry(host):
    (entry,) = (entry for entry in host.journal() if entry["role"] == "source")
    return entry


def takes_no_notice(pid, number):
    """Whether a signal to that process has not been taken yet."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd"))
    return int(line.split()[1], 16) >> (number - 1) & 1


def test_frozen_qemu_at_the_source_keeps_its_guest_until_it_can_be_asked(world):
    attempt = world.begin(("source", "after:pausing"))
    attempt.wait_stopped()
    world.guest.process.send_signal(signal.SIGSTOP)
    faults.kill_source(attempt)
    entry = open_entry(attempt.home)
    said = attempt.home.resolve(entry)
    assert said.returncode == 5 and "lives, but" in said.stderr, said
    assert open_entry(attempt.home) == entry
    world.guest.process.send_signal(signal.SIGCONT)
    assert world.end(attempt) == "stayed"
    world.move()


def test_frozen_qemu_at_the_destination_leaves_the_source_in_doubt_until_it_can_be_asked(world):
    attempt = world.begin(("destination", "after:activating"))
    attempt.wait_stopped()
    (pid,) = attempt.target.processes()
    frozen = ForeignProcess(pid)
    frozen.send_signal(signal.SIGSTOP)
    faults.kill_destination(attempt)
    attempt.listen()
    attempt.receiver.wait_log("lives, but")
    assert attempt.source.wait(60) == 5
    entry = open_entry(attempt.home)
    said = attempt.home.resolve(entry)
    assert said.returncode == 5 and "does not know what became of guest" in said.stderr, said
    assert not world.guest.is_running()
    frozen.send_signal(signal.SIGCONT)
    assert world.end(attempt) == "moved"


def test_damaged_entry_at_the_destination_leaves_the_source_in_doubt(world):
    attempt = world.begin(("destination", "after:activating"))
    attempt.wait_stopped()
    faults.kill_destination(attempt)
    (path,) = attempt.away.state.glob("*.destination.json")
    whole = path.read_text()
    path.write_text(whole[:40])
    attempt.listen()
    attempt.receiver.wait_log(f"{path} is damaged")
    assert attempt.source.wait(60) == 5
    said = attempt.home.resolve(open_entry(attempt.home))
    assert said.returncode == 5 and f"{path} is damaged" in said.stderr, said
    assert not world.guest.is_running()
    path.write_text(whole)
    assert world.end(attempt) == "moved"


def test_cancellation_after_the_hand_over_is_told_that_it_is_too_late(world):
    attempt = world.begin(("destination", "before:activating"))
    attempt.wait_stopped()
    faults.interrupt_source(attempt)
    wait_until(lambda: not takes_no_notice(attempt.source.pid, signal.SIGINT), "the interruption to be noticed")
    assert world.end(attempt) == "moved"
    assert attempt.result.exit_code == 0, attempt.result.stderr
    assert "too late to cancel: the guest has been handed over; finishing" in attempt.result.stderr
