"""Each stage times each fault where pages go from DPDK port to DPDK port: what comes of it is what comes of it over
the kernel's TCP (tests/fault/test_stages.py). A choice of the pairs; all of them with RAMFERRY_WHOLE_MATRIX=1.
"""
import pytest

from tests.fault.test_stages import JOURNAL_WRITES, WHOLE, cases, fill_disk, strike
from .lan import without_dpdk

pytestmark = pytest.mark.skipif(without_dpdk() is not None, reason=str(without_dpdk()))
DPDK = ("--transport", "dpdk")
# Every fault, and every stage in which pages or their end may be struck.
CHOICE = {
    "destination-after-reserved-kill_destination_qemu", "source-after-tracking-drop_packets",
    "source-after-tracking-kill_destination", "source-after-pausing-kill_source",
    "destination-before-holding-drop_packets", "destination-after-holding-kill_source_qemu",
    "source-after-handing-over-reset_connections", "destination-before-activating-interrupt_source",
    "destination-after-activating-kill_destination", "source-after-gone-terminate_destination",
}
PAIRS = [case for case in cases() if WHOLE or case.id in CHOICE]
assert WHOLE or len(PAIRS) == len(CHOICE)


@pytest.mark.parametrize("stop, fault, expected", PAIRS)
def test_one_guest_runs_by_dpdk_after(world, stop, fault, expected):
    outcome = strike(world, stop, fault, DPDK)
    assert outcome in expected
    if outcome != "moved":
        assert world.move(DPDK).report["transport"] == "dpdk-tls"


@pytest.mark.parametrize("side, moment, expected", JOURNAL_WRITES if WHOLE else [JOURNAL_WRITES[2], JOURNAL_WRITES[6]])
def test_one_guest_runs_by_dpdk_after_a_full_disk_at_the_journal(world, side, moment, expected):
    fill_disk(world, side, moment, expected, DPDK)


def test_nothing_is_left_of_all_that_by_dpdk(world):
    world.assert_clean()
