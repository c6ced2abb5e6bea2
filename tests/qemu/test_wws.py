"""`ramferry wws` and `ramferry predict` with a real guest: what they find, and that nothing is left of them."""
import json
import signal
import subprocess

import pytest

from tests.harness import leaks, ramferry
from tests.harness.deadline import wait_until
from tests.harness.qemu import TESTGUEST, Qemu
from .guests import assert_untouched

# 2048 pages, each written about once a second: within a second or two all of them are seen.
STEADY = "fill_mib=48 wss_mib=8 rate=4000 pattern=sequential check_rate=2000 tick_port=none"


@pytest.fixture
def guest():
    with Qemu("guest", kernel=TESTGUEST, append=STEADY) as source:
        source.wait_running()
        yield source


def start(site, guest, *arguments):
    command = [ramferry.binary(), "wws", f"qemu:{guest.ramferry_socket}", "--state-dir", site.state_directory("source"),
               *arguments]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_working_set_is_found_and_predict_reads_the_trace(site, guest, tmp_path):
    before = leaks.snapshot(guest)
    drawing, trace = tmp_path / "wws.svg", tmp_path / "guest.trace"
    measuring = start(site, guest, "--seconds", "10", "--json", "-", "--svg", drawing, "--trace", trace)
    output, errors = measuring.communicate(timeout=120)
    assert measuring.returncode == 0, errors
    found = json.loads(output)
    # The set, and the few pages that the guest keeps its books in; at most once for each epoch.
    most = max(entry["pages"] for entry in found["written_within"])
    assert 2000 < most < 3500, found["written_within"]
    assert found["faults"] < 5 * 3500
    assert 45 << 20 < found["contents_bytes"] < 60 << 20
    assert {block["region"] for block in found["trace"]["hottest"]} == {"ram0"}
    assert drawing.read_text().startswith("<svg ") and "Gbit/s" in drawing.read_text()
    assert_untouched(guest, before)

    predicted = ramferry.run("predict", "--trace", trace, "--bandwidth", "64", "--json", "-")
    assert predicted.returncode == 0, predicted.stderr
    prediction = json.loads(predicted.stdout)
    assert prediction["converges"] is True and len(prediction["rounds"]) >= 2
    assert prediction["total_ms"] > 45 / 64 * 1000


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)],
                         ids=["interrupted", "killed"])
def test_measurement_that_is_broken_off_leaves_the_guest_as_it_was(site, guest, number, code):
    before = leaks.snapshot(guest)
    measuring = start(site, guest, "--seconds", "600")
    wait_until(lambda: leaks.uffd_mappings(guest.pid), "tracking to be on")
    assert "its writing is being measured" in site.status("source")
    refused = ramferry.run("wws", f"qemu:{guest.ramferry_socket}", "--state-dir", site.state_directory("source"))
    assert refused.returncode == 3 and f"(process {measuring.pid}) is at work on guest" in refused.stderr
    measuring.send_signal(number)
    assert measuring.wait(60) == code, measuring.stderr.read()
    assert_untouched(guest, before)
    if number == signal.SIGKILL:  # the record is all that is left
        assert "a measurement was broken off" in site.status("source")
        guest.qmp.execute("stop")  # its owner's doing, which is none of the measurement's
        entry, = site.state_directory("source").glob("*.source.json")
        resolved = ramferry.run("resolve", entry.name.split(".")[0], "--state-dir", site.state_directory("source"))
        assert resolved.returncode == 0 and "are not tracked any more" in resolved.stdout, resolved
        assert guest.qmp.status() == "paused"
    assert site.leftovers_in_journals() == []
