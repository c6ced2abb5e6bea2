"""A guest much bigger than what it touched costs what it touched: bytes, memory, and nothing on the source."""
from tests.harness.memory import touched_bytes
from .guests import assert_moved, source_and_target

TOUCHED = 300 << 20


def test_bytes_and_memory_follow_what_an_8_gib_guest_touched(site):
    with source_and_target("fill_mib=300 wss_mib=1 rate=100", memory_mib=8192) as (source, target):
        populated = touched_bytes(source.memory_files)
        assert TOUCHED < populated < 1.1 * TOUCHED
        before = source.counters()
        with site.receiver(target) as receiver:
            # Long enough to see the source's memory at the end of the first round.
            moving = site.start_migrate(source, receiver)
            grown = populated
            while moving.process.poll() is None and source.process.poll() is None:
                grown = max(grown, touched_bytes(source.memory_files))
            result = moving.wait()
        assert grown < populated + (8 << 20)
        assert_moved(result, source, target, before)
        assert result.report["guest_bytes"] == 8 << 30
        assert result.report["bytes_sent"] < 1.2 * TOUCHED
        assert touched_bytes(target.memory_files) < 1.2 * TOUCHED


def test_zero_pages_cost_neither_bytes_nor_memory(site):
    with source_and_target("fill_mib=64 wss_mib=64 rate=0 zero_pct=100 pattern=sequential") as (source, target):
        source.wait_counters(lambda now: now["work_zeroed"] >= 64 * 256, "all pages to be zeroed")
        before = source.counters()
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, "--verify")
        assert_moved(result, source, target, before)
        assert result.report["verified"] is True
        # The remembered generations, the BIOS and a few pages of firmware are not zero.
        assert result.report["bytes_sent"] < 16 << 20
