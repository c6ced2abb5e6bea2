"""A destination that runs out of memory while pages land: the source runs on, and says why; `receive` lives."""
import contextlib
import subprocess
from pathlib import Path

import pytest

from tests.harness import leaks
from tests.harness.deadline import wait_until
from tests.harness.qemu import TESTGUEST, Qemu
from .guests import BUSY, assert_gone, assert_moved, assert_untouched
from .test_broken_off import SLOW, wait_precopy


@contextlib.contextmanager
def small_file_system(path, mib):
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "memory", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@contextlib.contextmanager
def source_and_target_on(directory):
    with Qemu("guest", kernel=TESTGUEST, append=BUSY + " tick_port=none") as source, \
         Qemu("guest", kernel=TESTGUEST, append=BUSY + " tick_port=none", awaited=True,
              memory_dir=str(directory)) as target:
        source.wait_running()
        yield source, target


@pytest.mark.parametrize("encryption", ["on", "off"])
def test_full_file_system_under_the_destinations_memory_is_one_clear_error(site, tmp_path, encryption):
    with small_file_system(tmp_path / "memory", 24) as directory, source_and_target_on(directory) as (source, target):
        before = leaks.snapshot(source)
        arguments = ("--data-encryption", encryption)
        with site.receiver(target, arguments=arguments) as receiver:
            result = site.migrate(source, receiver, *arguments)
            assert result.exit_code == 4 and result.report["outcome"] == "rolled-back", result.stderr
            assert "no memory for guest memory ram0" in result.report["error"]
            assert "make its file system larger or free memory" in result.report["error"]
            assert result.stderr.count(result.report["error"]) == 1
            assert_untouched(source, before)
            assert_gone(target)
            assert receiver.process.poll() is None
            wait_until(lambda: not site.leftovers_in_journals(), "clean journals", seconds=10)
            subprocess.run(["mount", "-o", "remount,size=200m", str(directory)], check=True)
            counters = source.counters()
            assert_moved(site.migrate(source, receiver, *arguments), source, target, counters)


class MemoryGroup:
    """A control group whose memory can be limited, of version 2 or 1 of the interface."""

    def __init__(self, name):
        root = Path("/sys/fs/cgroup")
        unified = (root / "cgroup.controllers").exists()
        self._directory = (root if unified else root / "memory") / name
        self._limit, self._usage = (("memory.max", "memory.current") if unified else
                                    ("memory.limit_in_bytes", "memory.usage_in_bytes"))
        try:
            if unified and "memory" not in (root / "cgroup.subtree_control").read_text():
                (root / "cgroup.subtree_control").write_text("+memory")
            self._directory.mkdir()
            if not (self._directory / self._limit).exists():
                self._directory.rmdir()
                pytest.skip("no control group can limit memory here")
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        wait_until(lambda: not (self._directory / "cgroup.procs").read_text(), "the control group to be empty", 30)
        self._directory.rmdir()

    def add(self, pid):
        (self._directory / "cgroup.procs").write_text(str(pid))

    def allow(self, more_bytes):
        """No more than so much beyond what is used now."""
        used = int((self._directory / self._usage).read_text())
        (self._directory / self._limit).write_text(str(used + more_bytes))

    def unlimit(self):
        (self._directory / self._limit).write_text(str(1 << 40))


def test_memory_limit_of_the_destination_ends_what_it_may_and_the_source_runs_on(site, tmp_path):
    """The kernel kills the destination's QEMU, or `receive`: which, is its choice."""
    with MemoryGroup(f"ramferry-{tmp_path.name}") as group, \
         source_and_target_on("/dev/shm") as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            group.add(receiver.process.pid)
            moving = site.start_migrate(source, receiver, *SLOW)
            wait_precopy(source, target)
            group.allow(4 << 20)
            result = moving.wait(60)
            group.unlimit()
            assert result.exit_code == 4 and result.report["outcome"] == "rolled-back", result.stderr
            assert result.report["error"]
            assert_untouched(source, before)
        with site.receiver(target) as receiver:  # settles what a killed one left
            assert_gone(target)
            counters = source.counters()
            assert_moved(site.migrate(source, receiver), source, target, counters)
