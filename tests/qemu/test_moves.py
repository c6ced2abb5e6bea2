"""A running guest moves: every machine type and accelerator, both kinds of destination, there and back."""
import pytest

from tests.harness import leaks
from tests.harness.qemu import TESTGUEST, Qemu, kvm_works
from tests.harness.site import HOSTS
from tests.harness.ticks import TickObserver
from .guests import BUSY, SMALL, assert_moved, source_and_target

KVM = pytest.mark.skipif(not kvm_works(), reason="no usable /dev/kvm here")


@pytest.mark.parametrize("append, common", [
    pytest.param(BUSY, {"machine": "q35"}, id="q35"),
    pytest.param(BUSY, {"machine": "pc"}, id="pc"),
    pytest.param(BUSY, {"smp": 2}, id="two-vcpus"),
    pytest.param("fill_mib=150 wss_mib=8 rate=2000", {"memory_mib": [128, 128], "smp": 2}, id="two-nodes"),
    pytest.param(SMALL, {"accel": "kvm", "memory_mib": 64}, id="kvm", marks=KVM),
])
def test_busy_guest_moves_and_keeps_every_page_and_tick(site, append, common):
    with TickObserver() as observer, source_and_target(append, observer, **common) as (source, target):
        with site.receiver(target) as receiver:
            before = source.counters()
            result = site.migrate(source, receiver, "--verify")
        assert_moved(result, source, target, before)
        assert result.report["verified"] is True
        ticks = observer.summary()
        assert ticks.switches == 1 and ticks.repeated == 0 and ticks.lost == 0


@pytest.mark.parametrize("paused", [True, False], ids=["started-with-S", "started-without-S"])
def test_guest_moves_into_a_qemu_that_the_operator_started(site, paused):
    with Qemu("guest", kernel=TESTGUEST, append=BUSY) as source, \
         Qemu("guest", kernel=TESTGUEST, append=BUSY, incoming=True, paused=paused) as target:
        source.wait_running()
        settings = leaks.snapshot(target)
        before = source.counters()
        with site.receiver(qmp=target.ramferry_socket) as receiver:
            result = site.migrate(source, receiver, "--verify")
        assert_moved(result, source, target, before)
        after = leaks.snapshot(target)
        assert (after.capabilities, after.parameters) == (settings.capabilities, settings.parameters)
        assert after.uffd_mappings == {} and after.tracer == 0


def move_on(site, source, append, hosts):
    """Moves a guest to a new QEMU on the other host; returns that."""
    target = Qemu("guest", kernel=TESTGUEST, append=append, awaited=True)
    try:
        before = source.counters()
        with site.receiver(target, host=hosts[1]) as receiver:
            result = site.migrate(source, receiver, host=hosts[0])
        assert_moved(result, source, target, before)
    except BaseException:
        target.stop()
        raise
    source.stop()
    return target


@pytest.mark.parametrize("moves, append", [(2, BUSY), (10, SMALL)], ids=["there-and-back", "ten-times"])
def test_guest_moves_again_and_again(site, moves, append):
    append += " tick_port=none"
    guest = Qemu("guest", kernel=TESTGUEST, append=append)
    try:
        guest.start().wait_running()
        for move in range(moves):
            guest = move_on(site, guest, append, HOSTS if move % 2 == 0 else HOSTS[::-1])
    finally:
        guest.stop()


def test_paused_guest_stays_paused_on_the_destination(site):
    with source_and_target() as (source, target):
        source.qmp.execute("stop")
        before = source.counters()
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, "--verify")
        assert result.exit_code == 0 and result.report["verified"] is True
        target.arrive()
        assert target.qmp.status() == "paused"
        assert target.counters() == before
        target.qmp.execute("cont")
        assert target.wait_sweeps(2)["bad"] == 0


def test_bandwidth_limit_holds_while_the_guest_runs(site):
    with source_and_target("fill_mib=48 wss_mib=1 rate=50") as (source, target):
        before = source.counters()
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, "--bandwidth", "24")
        assert_moved(result, source, target, before)
        first = result.report["rounds"][0]
        assert first["bytes"] > 40 << 20
        # A bucket may start full, but not with more than a fraction of a second.
        assert first["bytes"] / (first["ms"] / 1000) < 1.3 * (24 << 20)
