"""What the policies do to a real guest: nothing is lost by pages that were skipped or held, and a throttle goes."""
import signal
from pathlib import Path

from tests.harness import leaks
from tests.harness.deadline import wait_until
from tests.qemu.guests import assert_gone, assert_moved, assert_untouched, source_and_target

# Rewrites 48 MiB as fast as it can: faster than it may be sent.
ROGUE = "fill_mib=48 wss_mib=48 rate=0"
LIMITS = ("--bandwidth", "24", "--downtime", "120", "--max-rounds", "60")


def tracers(pid):
    """The threads (of any process) that trace a thread of this process."""
    found = set()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("TracerPid:"):
                found.add(int(line.split()[1]))
    return found - {0}


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


def test_rogue_guest_is_throttled_until_it_stops_and_works_on_at_full_speed(site):
    with source_and_target(ROGUE) as (source, target):
        counters = source.counters()
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, *LIMITS, "--if-not-converging", "throttle", "--verify")
        assert_moved(result, source, target, counters)
        assert "does not converge" in result.stderr and "of their time" in result.stderr
        rounds = result.report["rounds"]
        assert rounds[0]["cpu_share"] == 1
        assert min(r["cpu_share"] for r in rounds) < 1
        assert rounds[-1]["stopped"] and rounds[-1]["cpu_share"] == 1


def test_killed_while_it_throttles_the_guest_runs_at_full_speed_and_can_be_moved(site):
    with source_and_target(ROGUE) as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            # A target that nothing can meet: it throttles more and more.
            moving = site.start_migrate(source, receiver, "--bandwidth", "16", "--downtime", "1", "--max-rounds",
                                        "10000", "--if-not-converging", "throttle")
            wait_until(lambda: tracers(source.pid), "the guest to be throttled", seconds=60)
            assert all(Path(f"/proc/{moving.process.pid}/task/{thread}").exists() for thread in tracers(source.pid))
            moving.process.send_signal(signal.SIGKILL)
            assert moving.wait(30).exit_code == -signal.SIGKILL
            assert tracers(source.pid) == set()
            wait_until(lambda: not target.processes(), "the destination to give up", seconds=60)
            counters = source.counters()
            result = site.migrate(source, receiver, "--if-not-converging", "stop")
        assert_moved(result, source, target, counters)
        assert before.tracer == 0


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
