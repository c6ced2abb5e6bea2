"""A Linux guest moves between two hosts on a network: its connections live on, its disk and memory stay right."""
import contextlib
import struct

import pytest

from tests.guests.linux import build
from tests.harness import linux_guest
from tests.harness.linux_guest import LinuxGuest, TickReceiver, connect, echo, http_get
from tests.harness.netns import Network

_MISSING = linux_guest.unavailable()
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


@contextlib.contextmanager
def network_and_guest(ticking=True, **guest):
    """A Network, the client's TickReceiver or None, and a Linux guest that is up on the source."""
    with Network() as network, contextlib.ExitStack() as stack:
        ticks = stack.enter_context(TickReceiver(network.client)) if ticking else None
        source = stack.enter_context(LinuxGuest("linux", network.source, ticks=ticks, **guest))
        source.wait_up()
        yield network, ticks, source


def awaited_twin(network, ticks, **guest):
    return LinuxGuest("linux", network.destination, ticks=ticks, awaited=True, **guest)


def move(site, network, source, target, *arguments, meanwhile=lambda: None):
    """Moves the guest to the other host, while `meanwhile` is called again and again; returns the Migration."""
    with site.receiver(target, netns=network.destination.name) as receiver:
        moving = site.start_migrate(source, receiver, *arguments, address=network.destination.address,
                                    netns=network.source.name)
        while moving.process.poll() is None:
            meanwhile()
        result = moving.wait()
    assert result.exit_code == 0, result.stderr
    target.arrive()
    return result


def test_connections_http_and_ticks_live_on_through_a_move_to_another_host(site):
    with network_and_guest() as (network, ticks, source), awaited_twin(network, ticks) as target:
        client, address = network.client, source.address
        pages = []

        def fetch():
            assert http_get(client, address) == (200, build.PAGE)
            assert echo(talk, b"during") == b"during"
            pages.append(1)

        with connect(client, address, linux_guest.ECHO_PORT) as talk, \
             connect(client, address, linux_guest.COUNTER_PORT) as numbers:
            assert echo(talk, b"before") == b"before"
            result = move(site, network, source, target, "--bandwidth", "30", meanwhile=fetch)
            assert pages, "no page was fetched during the move"
            assert result.report["encrypted"] is True
            assert source.process.wait(10) is not None
            fetch()
            assert echo(talk, b"after") == b"after"
            # Every number comes once and in order, over the one connection.
            stream = numbers.makefile("rb")
            last = ticks.last()["number"]
            ticks.wait(lambda tick: tick["number"] > last + 100, "ticks from the other host")
            read = struct.unpack("<100Q", stream.read(800))
            assert read == tuple(range(100))
        tick = ticks.last()
        assert tick["memory_bad"] == 0 and ticks.summary().repeated == 0


def test_silent_guest_is_found_on_the_other_host_because_it_is_announced(site):
    with network_and_guest(ticking=False) as (network, _, source):
        network.client.know(linux_guest.ADDRESS, linux_guest.MAC)
        with connect(network.client, source.address, linux_guest.ECHO_PORT) as connection:
            assert echo(connection, b"before") == b"before"
            with awaited_twin(network, None) as target:
                move(site, network, source, target)
                assert echo(connection, b"after") == b"after"


def test_data_encryption_off_must_be_said_on_both_hosts(site):
    with network_and_guest() as (network, ticks, source), awaited_twin(network, ticks) as target:
        clear = ("--data-encryption", "off")
        with site.receiver(target, netns=network.destination.name) as receiver:
            refused = site.migrate(source, receiver, *clear, address=network.destination.address,
                                   netns=network.source.name)
            assert refused.exit_code == 3 and source.is_running(), refused
        with site.receiver(target, netns=network.destination.name, arguments=clear) as receiver:
            result = site.migrate(source, receiver, *clear, address=network.destination.address,
                                  netns=network.source.name)
        assert result.exit_code == 0 and result.report["encrypted"] is False
        target.arrive()
        last = ticks.last()["number"]
        assert ticks.wait(lambda tick: tick["number"] > last + 20, "ticks")["memory_bad"] == 0


def test_direct_disk_under_load_moves_whole(site, tmp_path):
    disk = tmp_path / "disk.raw"
    linux_guest.write_disk_image(disk, mib=8)
    drive = {"disk": disk, "disk_direct": True}
    with network_and_guest(**drive) as (network, ticks, source), \
         awaited_twin(network, ticks, **drive) as target:
        assert "direct-I/O disk" in site.check(source).stdout
        ticks.wait(lambda tick: tick["disk_reads"] > 500, "the disk to be read")
        result = move(site, network, source, target, "--verify", "--bandwidth", "60", "--downtime", "1",
                      "--max-rounds", "4", "--if-not-converging", "stop")
        assert result.report["verified"] is True
        assert len(result.report["rounds"]) > 4
        arrived = ticks.last()
        tick = ticks.wait(lambda now: now["disk_reads"] > arrived["disk_reads"] + 5000 and
                          now["memory_work"] > arrived["memory_work"] + 1000, "disk and memory work")
        assert tick["disk_bad"] == 0 and tick["memory_bad"] == 0
        assert ticks.summary().repeated == 0
