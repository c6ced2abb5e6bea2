"""What the policies do to a real guest: nothing is lost by pages that were skipped or held."""
from tests.harness import leaks
from tests.qemu.guests import assert_gone, assert_moved, assert_untouched, source_and_target

# Rewrites 48 MiB as fast as it can: faster than it may be sent.
ROGUE = "fill_mib=48 wss_mib=48 rate=0"


def test_hot_pages_are_skipped_and_arrive_whole(site):
    with source_and_target("fill_mib=64 wss_mib=24 rate=12000 pattern=hot zero_pct=10") as (source, target):
        counters = source.counters()
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, "--bandwidth", "32", "--downtime", "100", "--verify",
                                  "--max-rounds", "30", "--if-not-converging", "stop")
        assert_moved(result, source, target, counters)
        assert result.report["verified"]
        assert sum(r["skipped_pages"] for r in result.report["rounds"]) > 0


def test_rate_begins_at_the_least_and_stays_under_the_most(site):
    with source_and_target("fill_mib=32 wss_mib=8 rate=1000") as (source, target):
        counters = source.counters()
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, "--least-bandwidth", "16", "--bandwidth", "64", "--downtime", "30")
        assert_moved(result, source, target, counters)
        limits = [r["rate_limit"] for r in result.report["rounds"] if not r["stopped"]]
        assert limits[0] == 16 << 20
        assert all(limit <= 64 << 20 for limit in limits)


def test_guest_that_will_not_converge_is_found_out_long_before_the_last_round(site):
    with source_and_target(ROGUE) as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, "--bandwidth", "24", "--downtime", "60", "--max-rounds", "60")
            assert result.exit_code == 4
            for words in ("does not converge", "pages (", "MiB a second are sent", "target of 60 ms"):
                assert words in result.report["error"]
            assert len(result.report["rounds"]) <= 10
            assert_untouched(source, before)
            assert_gone(target)
