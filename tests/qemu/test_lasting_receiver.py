"""A `ramferry receive` that goes on for months keeps nothing of moves that have ended, however they ended."""
import contextlib
import signal
from collections import Counter
from pathlib import Path

from tests.harness import leaks, ramferry
from tests.harness.deadline import TimedOut, wait_until
from tests.harness.qemu import ForeignProcess
from .guests import assert_gone, assert_moved, source_and_target
from .test_broken_off import SLOW, wait_precopy


def holdings(pid, memory_files):
    """What a process has of its own making: descriptors by kind, our threads by name, mappings of guest memory."""
    found = leaks.descriptors(pid)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            name = (thread / "comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name.startswith("rf-"):
            found[name] += 1
    maps = Path(f"/proc/{pid}/maps").read_text()
    found["guest memory"] = sum(maps.count(path) for path in memory_files)
    return +found


def end_by_interruption(moving, target):
    moving.process.send_signal(signal.SIGINT)


def end_by_killing_the_source(moving, target):
    moving.process.kill()


def end_by_killing_its_qemu(moving, target):
    for pid in target.processes():
        ForeignProcess(pid).kill()


def test_receiver_keeps_nothing_of_moves_that_were_broken_off(site):
    ends = [end_by_interruption, end_by_killing_the_source, end_by_killing_its_qemu]
    with source_and_target() as (source, target):
        with site.receiver(target) as receiver:
            held = lambda: holdings(receiver.process.pid, target.memory_files)
            before = None
            for end in [*ends, *ends]:
                moving = site.start_migrate(source, receiver, *SLOW)
                wait_precopy(source, target)
                end(moving, target)
                moving.wait(60)
                assert_gone(target)
                for entry in site.state_directory("source").glob("*.source.json"):
                    told = ramferry.run("resolve", entry.name.split(".")[0], *site.identity("source"))
                    assert told.returncode == 0, told
                if end is ends[-1] and before is None:
                    before = held()  # with what libraries make at their first use
            with contextlib.suppress(TimedOut):
                wait_until(lambda: not held() - before, "the receiver to have no more than before", 90)
            assert held() - before == Counter()
            counters = source.counters()
            assert_moved(site.migrate(source, receiver), source, target, counters)
