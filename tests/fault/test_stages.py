"""Each stage times each fault: afterwards one guest runs, the one that the rule says, and a second attempt succeeds.

A moment is a write to a journal (engine/journal.h): the process that makes it stops just before or after it, the
fault strikes, the process goes on if it lives. What must come out is known for every pair.
"""
import os

import pytest

from . import faults

# (side that stops, when): what each fault leads to, in the order of faults.FAULTS. M: the guest has moved, s: it
# stayed, x: it was lost with the QEMU that was killed while it ran there. ?: M or s, as the one or the other wins.
MOMENTS = {
    ("destination", "after:starting"): "ssxMssss",      # stage 1: a QEMU is about to be started
    ("destination", "before:reserved"): "ssxsssss",     # it waits
    ("destination", "after:reserved"): "ssxsssss",
    ("source", "after:tracking"): "ssxsssss",           # stage 2
    ("source", "after:pausing"): "ssxsssss",            # stage 3: the guest is about to be stopped
    ("destination", "before:holding"): "ssMsss??",      # stage 3: the image is whole
    ("destination", "after:holding"): "ssMsss??",       # stage 4: not said yet
    ("source", "before:handing-over"): "ssMsssM?",      # stage 4: the source may still resume
    ("source", "after:handing-over"): "ssMsssM?",       # it may not; the ownership message has not left
    ("destination", "before:activating"): "MsMsMMMM",   # the ownership message has come
    ("destination", "after:activating"): "MMMsMMMM",    # stage 5: the guest does not run yet
    ("destination", "before:activated"): "MMMxMMMM",    # it runs
    ("source", "after:gone"): "MMMxMMMM",               # the source knows
}
OUTCOMES = {"M": ("moved",), "s": ("stayed",), "x": ("lost",), "?": ("moved", "stayed")}
# Where a full disk must not let the guest go, and where it has gone all the same.
JOURNAL_WRITES = [
    ("source", "before:tracking", "stayed"), ("source", "before:pausing", "stayed"),
    ("source", "before:handing-over", "stayed"), ("source", "before:gone", "moved"),
    ("destination", "before:starting", "stayed"), ("destination", "before:reserved", "stayed"),
    ("destination", "before:holding", "stayed"),
    ("destination", "before:activating", "stayed"), ("destination", "before:activated", "moved"),
]


# Two processes at once, in the order of LARGER_FAULTS. When the destination's host goes just after it was told to run
# the guest, a person decides (World does).
LARGER_FAULTS = [faults.kill_both_ramferries, faults.lose_source_host, faults.lose_destination_host]
LARGER_MOMENTS = {
    ("destination", "after:starting"): "sxs",
    ("destination", "after:reserved"): "sxs",
    ("source", "after:pausing"): "sxs",
    ("destination", "after:holding"): "sxs",
    ("source", "after:handing-over"): "sxs",
    ("destination", "after:activating"): "MMs",
    ("source", "after:gone"): "MMx",
}
WHOLE = os.environ.get("RAMFERRY_WHOLE_MATRIX") == "1"
# Pages in the clear lead to the same. Each stage times each fault only where the whole matrix is asked for; else each
# fault where pages are what it meets, and one for each other moment, where the two transports are one.
PLAIN = ("--data-encryption", "off")
PAGES_ARE_STRUCK = {("source", "after:tracking"), ("source", "after:pausing"), ("destination", "before:holding"),
                    ("destination", "after:activating")}


def cases(moments=MOMENTS, columns=faults.FAULTS):
    for (side, moment), outcomes in moments.items():
        for fault, outcome in zip(columns, outcomes, strict=True):
            yield pytest.param((side, moment), fault, OUTCOMES[outcome],
                               id=f"{side}-{moment.replace(':', '-')}-{fault.__name__}")


def plain_cases():
    for number, case in enumerate(cases()):
        moment, fault = divmod(number, len(faults.FAULTS))
        if WHOLE or case.values[0] in PAGES_ARE_STRUCK or fault == moment % len(faults.FAULTS):
            yield case


def strike(world, stop, fault, arguments=()):
    attempt = world.begin(stop, arguments)
    attempt.wait_stopped()
    fault(attempt)
    outcome = world.end(attempt)
    assert attempt.resets != 0, "there was no connection to reset"
    return outcome


def fill_disk(world, side, moment, expected, arguments=()):
    def fill(attempt):
        (attempt.home if side == "source" else attempt.away).fill_disk()

    assert strike(world, (side, moment), fill, arguments) == expected
    if expected != "moved":
        world.move(arguments)


@pytest.mark.parametrize("stop, fault, expected", cases())
def test_one_guest_runs_after(world, stop, fault, expected):
    outcome = strike(world, stop, fault)
    assert outcome in expected
    if outcome != "moved":
        world.move()


@pytest.mark.parametrize("stop, fault, expected", cases(LARGER_MOMENTS, LARGER_FAULTS))
def test_one_guest_runs_after_the_loss_of_two_processes(world, stop, fault, expected):
    assert strike(world, stop, fault) in expected
    world.move()


@pytest.mark.parametrize("stop, fault, expected", plain_cases())
def test_one_guest_runs_without_encryption_after(world, stop, fault, expected):
    outcome = strike(world, stop, fault, PLAIN)
    assert outcome in expected
    if outcome != "moved":
        world.move(PLAIN)


@pytest.mark.parametrize("side, moment, expected", JOURNAL_WRITES)
def test_one_guest_runs_after_a_full_disk_at_the_journal(world, side, moment, expected):
    fill_disk(world, side, moment, expected)


@pytest.mark.parametrize("side, moment, expected", JOURNAL_WRITES if WHOLE else JOURNAL_WRITES[1:2])
def test_one_guest_runs_without_encryption_after_a_full_disk_at_the_journal(world, side, moment, expected):
    fill_disk(world, side, moment, expected, PLAIN)


def test_nothing_is_left_of_all_that(world):
    world.assert_clean()
