"""The Linux guest boots on a network of namespaces and shows what it does; its checks can fail."""
import struct

import pytest

from tests.guests.linux import build
from tests.harness import linux_guest, netns
from tests.harness.linux_guest import LinuxGuest, TickReceiver, connect, echo, http_get
from tests.harness.qemu import migrate_by_qemu


_MISSING = linux_guest.unavailable()
pytestmark = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


def test_linux_guest_serves_http_tcp_and_ticks(tmp_path):
    disk = tmp_path / "disk.raw"
    linux_guest.write_disk_image(disk, mib=4)
    with netns.Network() as network, TickReceiver(network.client) as ticks, \
         LinuxGuest("guest", network.source, ticks=ticks, disk=disk, disk_direct=True) as guest:
        guest.wait_up()
        assert http_get(network.client, guest.address) == (200, build.PAGE)
        with connect(network.client, guest.address, linux_guest.ECHO_PORT) as connection:
            assert echo(connection, b"are you there?") == b"are you there?"
        with connect(network.client, guest.address, linux_guest.COUNTER_PORT) as connection:
            numbers = connection.makefile("rb").read(5 * 8)
            assert struct.unpack("<5Q", numbers) == (0, 1, 2, 3, 4)
        start = ticks.wait(lambda tick: tick["memory_work"] > 100, "memory to be rewritten")
        tick = ticks.wait(lambda now: now["disk_reads"] > 1000 and now["number"] > start["number"] + 50,
                          "disk reads and ticks")
        assert tick["memory_bad"] == 0 and tick["disk_bad"] == 0
        assert ticks.summary().repeated == 0


def test_linux_guest_sees_a_wrong_disk_block(tmp_path):
    disk = tmp_path / "disk.raw"
    linux_guest.write_disk_image(disk, mib=4)
    with open(disk, "r+b") as image:
        image.seek(333 * 4096 + 96)
        image.write(b"\xff")
    with netns.Network() as network, TickReceiver(network.client) as ticks, \
         LinuxGuest("guest", network.source, ticks=ticks, disk=disk) as guest:
        guest.wait_up()
        tick = ticks.wait(lambda now: now["disk_bad"] > 0, "the bad block to be found")
        assert tick["disk_first_bad_block"] == 333


def test_linux_guest_sees_a_wrong_page():
    with netns.Network() as network, TickReceiver(network.client) as ticks, \
         LinuxGuest("guest", network.source, ticks=ticks) as guest:
        guest.wait_up()
        assert ticks.wait(lambda now: now["memory_work"] > 0, "memory to be rewritten")["memory_bad"] == 0
        guest.qmp.execute("stop")
        address, page = find_page_of_the_agent(guest.memory, mib=32)
        guest.memory.write(address + 800, bytes([page[800] ^ 0xff]))
        guest.qmp.execute("cont")
        ticks.wait(lambda now: now["memory_bad"] == 1, "the bad page to be found", seconds=120)


def find_page_of_the_agent(memory, mib):
    """The address and the content of a page that the agent checks; agent.c's RewriteMemory fills them.

    One that it will come to in half a round: it checks a page just before it writes it anew, so damage to
    the page that it is at may be written over unseen. And one with no second copy: the kernel moves pages
    about, and what it leaves behind is checked by nobody.
    """
    stride, pages = 0x9e3779b97f4a7c15, mib << 8
    inverse = pow(stride, -1, 1 << 64)
    places = {}  # by the page's index: [(generation, address)]
    for address in range(0, memory.size, 4096):
        page = memory.read(address, 4096)
        if page != page[:8] * 512:
            continue
        word = int.from_bytes(page[:8], "little")
        for generation in range(1, 64):
            index = (word - generation) * inverse % (1 << 64) - 1
            if index < pages:
                places.setdefault(index, []).append((generation, address))
                break
    newest = max(generation for copies in places.values() for generation, _ in copies)
    now_at = sum((newest, address) in copies for copies in places.values() for _, address in copies)
    for step in range(pages):
        copies = places.get((now_at + pages // 2 + step) % pages, [])
        if len(copies) == 1:
            return copies[0][1], memory.read(copies[0][1], 4096)
    raise AssertionError(f"no page of the agent's with only one copy, among {len(places)} seen")


def test_open_connections_live_on_through_a_move_to_the_other_host():
    with netns.Network() as network, TickReceiver(network.client) as ticks, \
         LinuxGuest("source", network.source, ticks=ticks) as source, \
         LinuxGuest("target", network.destination, ticks=ticks, incoming=True) as target:
        source.wait_up()
        with connect(network.client, source.address, linux_guest.ECHO_PORT) as connection:
            assert echo(connection, b"before") == b"before"
            source.qmp.execute("stop")  # see migrate_by_qemu
            migrate_by_qemu(source, target)
            source.stop()
            assert echo(connection, b"after") == b"after"
        number = ticks.last()["number"]
        tick = ticks.wait(lambda now: now["number"] > number + 20, "ticks from the other host")
        assert tick["memory_bad"] == 0 and ticks.summary().repeated == 0


@pytest.mark.parametrize("announced", [True, False])
def test_a_silent_guest_is_found_after_a_move_only_if_announced(announced):
    with netns.Network() as network, LinuxGuest("source", network.source) as source:
        source.wait_up()
        network.client.know(linux_guest.ADDRESS, linux_guest.MAC)
        with connect(network.client, source.address, linux_guest.ECHO_PORT) as connection:
            assert echo(connection, b"before") == b"before"
            # Started only now: a frame that the switch flooded before it knew the guest's place would wait in
            # the destination's tap, and the guest's answer to it would be an announcement too.
            with LinuxGuest("target", network.destination, incoming=True) as target:
                source.qmp.execute("stop")  # see migrate_by_qemu
                for qemu in (source, target):
                    qemu.qmp.execute("migrate-set-parameters", **{"announce-rounds": 5 if announced else 0})
                migrate_by_qemu(source, target)
                if announced:
                    assert echo(connection, b"after") == b"after"
                    return
                connection.settimeout(2)
                with pytest.raises(TimeoutError):
                    echo(connection, b"after")
