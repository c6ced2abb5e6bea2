"""A busy guest moves by way of a DPDK port, to or from one, and over the kernel's TCP when the port fails."""
import pytest

from tests.harness import leaks
from tests.harness.deadline import wait_until
from tests.qemu.guests import assert_moved, assert_untouched, source_and_target
from .lan import Lan, without_dpdk

pytestmark = pytest.mark.skipif(without_dpdk() is not None, reason=str(without_dpdk()))
DESTINATION = "10.77.0.2"
# A second of it must be enough to see that it is under way.
SLOWLY = ("--bandwidth", "8")


def configuration(tmp_path, text):
    path = tmp_path / "migrate.toml"
    path.write_text(text)
    return ["--config", path]


def move(site, lan, tmp_path, source, target, sender, receiver, *flags):
    """Moves a guest; `sender` and `receiver`: the transport of either side, "dpdk", "tcp" or "auto"."""
    config = lan.config("destination") if receiver != "tcp" else ""
    with site.receiver(target, netns=lan.destination.name, config=config,
                       arguments=["--transport", receiver, *flags]) as there:
        here = configuration(tmp_path, lan.config("source") if sender != "tcp" else "")
        return site.migrate(source, there, *here, "--transport", sender, "--verify", *flags,
                            address=DESTINATION, netns=lan.source.name)


PLAIN = ("--data-encryption", "off")


@pytest.mark.parametrize("sender, receiver, mtu, flags, transport", [
    ("dpdk", "tcp", 1500, (), "dpdk-tls"),
    ("dpdk", "tcp", 9000, PLAIN, "dpdk"),
    ("tcp", "dpdk", 1500, PLAIN, "tcp"),
    ("tcp", "dpdk", 9000, (), "tcp-tls"),
    ("dpdk", "dpdk", 1500, (), "dpdk-tls"),
    ("auto", "auto", 9000, PLAIN, "dpdk"),
])
def test_busy_guest_moves(site, tmp_path, sender, receiver, mtu, flags, transport):
    with Lan(mtu) as lan, source_and_target() as (source, target):
        before = source.counters()
        result = move(site, lan, tmp_path, source, target, sender, receiver, *flags)
        assert_moved(result, source, target, before)
        assert result.report["transport"] == transport
        assert result.report["verified"] is True
        assert result.report["encrypted"] == (flags == ())
        if sender != "tcp":
            assert result.report["port"]["bytes_sent"] > 30_000_000
            assert "dpdk0 (net_af_packet)" in result.report["paths"][0]
        host = "source" if sender != "tcp" else "destination"
        assert lan.sent(host) > (30_000_000 if sender != "tcp" else 10_000)


def start_and_cut(site, lan, tmp_path, source, there, sender):
    moving = site.start_migrate(source, there, *configuration(tmp_path, lan.config("source")), "--transport", sender,
                                *SLOWLY, *PLAIN, address=DESTINATION, netns=lan.source.name)
    wait_until(lambda: lan.sent("source") > 4_000_000, "pages to be under way", seconds=60)
    lan.cut("source")
    return moving.wait()


def test_link_is_cut_and_the_guest_goes_on_over_kernel_tcp(site, tmp_path):
    with Lan() as lan, source_and_target() as (source, target):
        before = source.counters()
        with site.receiver(target, netns=lan.destination.name, arguments=PLAIN) as there:
            result = start_and_cut(site, lan, tmp_path, source, there, "auto")
        assert_moved(result, source, target, before)
        assert result.report["transport"] == "tcp"
        assert "dpdk to tcp has failed" in result.stdout + result.stderr


def test_link_is_cut_and_the_guest_stays_where_it_is(site, tmp_path):
    with Lan() as lan, source_and_target() as (source, target):
        before = leaks.snapshot(source)
        with site.receiver(target, netns=lan.destination.name, arguments=PLAIN) as there:
            result = start_and_cut(site, lan, tmp_path, source, there, "dpdk")
        assert result.exit_code == 4, result.stderr
        assert_untouched(source, before)


def test_a_port_that_reaches_nobody_is_passed_over(site, tmp_path):
    with Lan() as lan, source_and_target() as (source, target):
        before = source.counters()
        lan.cut("destination")
        result = move(site, lan, tmp_path, source, target, "auto", "auto", *PLAIN)
        assert_moved(result, source, target, before)
        assert result.report["transport"] in ("dpdk", "tcp")  # to the kernel's TCP, one way or the other
        assert "nobody there answers ARP" in result.stdout + result.stderr


def test_two_processes_share_memory_instead_of_a_wire(site, tmp_path):
    def config(role, number):
        return (f'[dpdk]\ndevice = "net_memif0,role={role},bsize=2048,rsize=10,socket={tmp_path}/memif,'
                f'socket-abstract=no,mac=02:00:00:88:00:0{number}"\naddress = "10.88.0.{number}/24"\n')

    with Lan() as lan, source_and_target() as (source, target):
        before = source.counters()
        with site.receiver(target, netns=lan.destination.name, config=config("server", 2),
                           arguments=["--transport", "dpdk"]) as there:
            result = site.migrate(source, there, *configuration(tmp_path, config("client", 1)), "--transport", "dpdk",
                                  "--verify", address=DESTINATION, netns=lan.source.name)
        assert_moved(result, source, target, before)
        assert result.report["transport"] == "dpdk-tls"
        assert "net_memif" in result.report["paths"][0]
