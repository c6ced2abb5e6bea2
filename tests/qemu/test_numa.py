"""NUMA with a real QEMU on this machine's own nodes: policies and affinities as the kernel tells them."""
import json
import os
import pathlib

import pytest

from tests.harness import leaks, ramferry
from tests.harness.deadline import wait_until
from .guests import BUSY, SMALL, assert_gone, assert_moved, assert_untouched, source_and_target

TWO_NODES = {"append": "fill_mib=150 wss_mib=8 rate=2000", "memory_mib": [128, 128], "smp": 2}
NUMA = pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="this kernel has no CONFIG_NUMA")


def policies(process, path):
    """The memory policies of a process's mappings of a file."""
    lines = pathlib.Path(f"/proc/{process}/numa_maps").read_text().splitlines()
    return {line.split()[1] for line in lines if f"file={path} " in line + " "}


def threads(process, kind):
    """CPU lists of a process's threads KIND-0, KIND-1 and so on, by number."""
    found = {}
    for task in pathlib.Path(f"/proc/{process}/task").iterdir():
        try:
            name = (task / "comm").read_text().strip()
            status = (task / "status").read_text()
        except OSError:
            continue  # it has just ended
        if name.startswith(kind + "-"):
            found[int(name.rpartition("-")[2])] = status.split("Cpus_allowed_list:")[1].split()[0]
    return [found[number] for number in sorted(found)]


@NUMA
def test_memory_is_bound_to_the_mapped_node_also_for_qemu_itself(site):
    with source_and_target(**TWO_NODES) as (source, target):
        with site.receiver(target, arguments=["--numa-map", "0:0,1:0"]) as receiver:
            before = source.counters()
            result = site.migrate(source, receiver, "--verify")
            receiver.wait_log("memory ram1 (guest node 1): ")
            log = receiver.log
        assert_moved(result, source, target, before)
        for region in (0, 1):
            assert f"memory ram{region} (guest node {region}): " in log
            assert policies(target.process.pid, target.memory_files[region]) == {"prefer:0"}
        assert log.count("on node 0, as planned (--numa-map)") == 2 and "NOT AS PLANNED" not in log


def test_map_to_a_node_that_is_not_there_is_refused_at_once(site):
    with source_and_target(**TWO_NODES) as (_, target):
        with pytest.raises(RuntimeError, match="--numa-map 1:1023: the destination has no memory node 1023, only 0"):
            with site.receiver(target, arguments=["--numa-map", "0:0,1:1023"]):
                pass
        assert_gone(target)


def test_threads_that_move_memory_keep_to_the_cpus_named(site):
    cpu = str(max(os.sched_getaffinity(0)))
    with source_and_target(BUSY) as (source, target):
        with site.receiver(target, arguments=["--cpus", cpu]) as receiver:
            before = source.counters()
            moving = site.start_migrate(source, receiver, "--cpus", cpu, "--workers", "2", "--bandwidth", "16")
            wait_until(lambda: len(threads(moving.process.pid, "rf-worker")) == 2, "two workers")
            wait_until(lambda: len(threads(receiver.process.pid, "rf-land")) == 2, "two threads that receive")
            assert threads(moving.process.pid, "rf-worker") == [cpu, cpu]
            assert threads(receiver.process.pid, "rf-land") == [cpu, cpu]
            result = moving.wait()
        assert_moved(result, source, target, before)
        if len(os.sched_getaffinity(0)) > 1:
            assert [worker["cpus"] for worker in result.report["placement"]] == [cpu, cpu]


def test_topology_shows_the_guest_and_leaves_it_alone(site, tmp_path):
    with source_and_target(SMALL, memory_mib=[32, 32], smp=2) as (source, _):
        before = leaks.snapshot(source)
        drawing = tmp_path / "plan.svg"
        shown = ramferry.run("topology", f"qemu:{source.ramferry_socket}", "--workers", "2", "--json", "-",
                             "--svg", drawing)
        assert shown.returncode == 0, shown.stderr
        guest = json.loads(shown.stdout)["guest"]
        assert [(part["name"], part["guest_node"]) for part in guest["memory"]] == [("ram0", 0), ("ram1", 1)]
        assert len(guest["vcpus"]) == 2 and len(guest["workers"]) == 2
        assert drawing.read_text().startswith("<svg ")
        assert_untouched(source, before)
