"""What the end-to-end tests do again and again: a test guest, its twin on the destination, and the judgement."""
import contextlib
import os

from tests.harness import leaks
from tests.harness.deadline import TimedOut, wait_until
from tests.harness.memory import touched_bytes
from tests.harness.qemu import TESTGUEST, Qemu

# For a guest under emulation, and for one under a KVM that may itself be emulated, instruction by instruction.
BUSY = "fill_mib=48 wss_mib=8 rate=2000 zero_pct=20"
SMALL = "fill_mib=4 wss_mib=2 rate=100 tick_us=10000"


@contextlib.contextmanager
def source_and_target(append=BUSY, observer=None, **common):
    """A running test guest, and the awaited Qemu that is its twin. With a TickObserver, ticks go there."""
    ports = {side: {"serial": observer.listen(side)} if observer else {} for side in ("source", "target")}
    if not observer:
        append += " tick_port=none"
    with Qemu("guest", kernel=TESTGUEST, append=append, **ports["source"], **common) as source, \
         Qemu("guest", kernel=TESTGUEST, append=append, awaited=True, **ports["target"], **common) as target:
        source.wait_running()
        yield source, target


def assert_moved(result, source, target, before):
    """The guest works on the destination, its memory is whole, and the source has nothing left of it.

    `before` are the guest's counters from before the move; returns those of now.
    """
    assert result.exit_code == 0, result.stderr
    assert result.report["outcome"] == "migrated"
    assert source.process.wait(10) is not None
    assert touched_bytes(source.memory_files) == 0
    if target.awaited:
        target.arrive()
    assert target.is_running()
    after = target.wait_sweeps(2)
    assert after["bad"] == 0, after
    assert after["ticks"] > before["ticks"] and after["work"] > before["work"]
    return after


def assert_untouched(source, before):
    """The guest runs on the source, and QEMU is as it was: `before` is a leaks.Snapshot."""
    differences = ["?"]

    def as_before():  # QEMU closes what a cancelled migration used a moment after it says so
        differences[:] = leaks.differences(before, leaks.snapshot(source))
        return not differences

    with contextlib.suppress(TimedOut):
        wait_until(as_before, "QEMU to be as before", seconds=5)
    assert differences == []
    if before.status == "running":
        work = source.counters()["work"]
        source.wait_counters(lambda now: now["work"] > work, "the guest to work on")
    assert source.counters()["bad"] == 0


def assert_gone(target):
    """Nothing of an awaited QEMU is left: no process, no memory, no socket."""
    # Whoever ends it removes its files a moment later.
    wait_until(lambda: not target.processes() and not existing(target.memory_files),
               f"the destination's QEMU and its memory to be gone: {target.processes()}", seconds=30)


def existing(paths):
    return [path for path in paths if os.path.exists(path)]
