"""A Network whose hosts have a second device, dpdk0, for DPDK: on the same switch, beside the kernel's.

    with Lan(mtu=9000) as lan:
        config = lan.config("source")          # the section [dpdk] of that host's configuration
        lan.cut("source")                      # pulls the cable out of its dpdk0
"""
import contextlib
import shutil
import socket
import subprocess

from tests.harness.netns import Network, _run

HOSTS = ("source", "destination")


def without_dpdk():
    """Why these tests cannot run here; None: they can."""
    from tests.harness import ramferry, netns

    reason = netns.available()
    if reason:
        return reason
    if not shutil.which("ethtool"):
        return "no ethtool"
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except OSError as error:
        return f"no packet sockets, which net_af_packet needs: {error}"
    result = ramferry.run("check", "--state-dir", "/nowhere")
    return "this ramferry was built without DPDK" if "DPDK" in result.stdout and "not built in" in next(
        line for line in result.stdout.splitlines() if "DPDK" in line) else None


class Lan(Network):
    HOST_PORTS = (*Network.HOST_PORTS, "dport1", "dport2")

    def __init__(self, mtu=1500):
        self.mtu = mtu

    def __enter__(self):
        super().__enter__()
        try:
            for host in (self.source, self.destination):
                self._widen(host)
            for number, host in enumerate((self.source, self.destination), start=1):
                self._add_device(number, host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _widen(self, host):
        for name, device in ((host.name, "uplink"), (host.name, "br0"), (self._switch, "br0")):
            _run("ip", "-n", name, "link", "set", device, "mtu", str(self.mtu))
        for number in (1, 2, 3):
            _run("ip", "-n", self._switch, "link", "set", f"port{number}", "mtu", str(self.mtu))

    def _add_device(self, number, host):
        port = f"dport{number}"
        mtu = ("mtu", str(self.mtu))
        _run("ip", "-n", host.name, "link", "add", "dpdk0", *mtu, "type", "veth", "peer", "name", port, *mtu,
             "netns", self._switch)
        # What arrives at a port must be packets as on a wire, with their checksums.
        _run("ip", "netns", "exec", self._switch, "ethtool", "-K", port, "tx", "off", "tso", "off", "gso", "off")
        _run("ip", "-n", self._switch, "link", "set", port, "master", "br0", "up")
        _run("ip", "-n", host.name, "link", "set", "dpdk0", "up")

    def address(self, host):
        """Of its DPDK port."""
        return f"{self.PREFIX}.{11 + HOSTS.index(host)}"

    def config(self, host, **more):
        lines = {"device": '"dpdk0"', "address": f'"{self.address(host)}/24"', "mtu": self.mtu, **more}
        return "[dpdk]\n" + "".join(f"{key} = {value}\n" for key, value in lines.items())

    def cut(self, host):
        _run("ip", "-n", self._switch, "link", "set", f"dport{1 + HOSTS.index(host)}", "down")

    def sent(self, host):
        """Bytes that left this host's DPDK port."""
        namespace = getattr(self, host).name
        with contextlib.suppress(ValueError):
            text = subprocess.run(["ip", "netns", "exec", namespace, "cat", "/sys/class/net/dpdk0/statistics/tx_bytes"],
                                  capture_output=True, text=True, check=True).stdout
            return int(text)
        return 0
