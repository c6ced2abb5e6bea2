"""A journal entry that is damaged is named by every command, and stops the guest that it may be about, and no other."""
import json

from tests.harness import leaks, ramferry
from .guests import assert_moved, assert_untouched, source_and_target

TINY = "fill_mib=2 wss_mib=1 rate=100"
# What a `ramferry migrate` of another guest left that was killed with its host: that guest is gone.
BROKEN_OFF = {
    "format": 1, "migration_id": "600d", "role": "source", "phase": "tracking", "guest": "another",
    "locator": "qemu:/nowhere/another.qmp", "peer": "192.0.2.9", "server_name": "", "running": True,
    "undo": json.dumps({"process": {"boot_id": "another boot", "pid": 1, "started": 1},
                        "capabilities": {}, "max-bandwidth": 0}),
    "boot_id": "another boot", "pid": 1, "pid_started": 1}


def put(directory, name, text):
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / name
    path.write_text(text)
    return path


def test_damaged_entry_stops_its_own_guest_and_no_other(site):
    home = site.state_directory("source")
    here = put(home, "dead.source.json", "\0" * 100)
    there = put(site.state_directory("destination"), "beef.destination.json", '{"guest": "web7", "locator": "qemu:/no')
    put(home, "600d.source.json", json.dumps(BROKEN_OFF))

    told = ramferry.run("status", "--state-dir", home)
    assert told.returncode == 1 and str(here) in told.stdout and "a copy was broken off" in told.stdout, told
    told = ramferry.run("resolve", "600d", *site.identity("source"))
    assert told.returncode == 0 and "guest another is gone" in told.stdout and str(here) in told.stderr, told
    told = ramferry.run("resolve", "dead", *site.identity("source"))
    assert told.returncode == 5 and str(here) in told.stderr, told

    with source_and_target(TINY) as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target) as receiver:
            assert f"{there} is damaged" in receiver.log and "web7" in receiver.log
            told = site.check(source)
            assert told.returncode == 3 and str(here) in told.stdout, told
            result = site.migrate(source, receiver)  # it may be this guest that was handed over
            assert result.exit_code == 3 and str(here) in result.stderr, result
            assert_untouched(source, before)
            here.write_text('{"guest": "web8", "locator": "qemu:/run/web8.qmp", "migr')
            counters = source.counters()
            result = site.migrate(source, receiver)
            assert_moved(result, source, target, counters)
            assert str(here) in result.stderr and "web8" in result.stderr, result
        here.unlink()
        there.unlink()
