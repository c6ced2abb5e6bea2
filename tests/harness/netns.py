"""Two hosts and a client on one switch, each in a network namespace of its own. Needs root.

    with Network() as network:
        Qemu("source", netns=network.source.name, extra=network.source.nic(mac), ...)
        subprocess.run(network.client.command("ip", "neighbour"))
        connection = network.client.socket(socket.AF_INET, socket.SOCK_STREAM)

The switch is a bridge in a namespace of its own. Each host has a bridge too, which carries its address, its
uplink and the tap devices of its guests, so that a guest's frames take the way they would take in a rack,
and a moved guest must announce itself before the switch finds it again. Nothing else can be reached.
"""
import ctypes
import itertools
import os
import socket
import subprocess
import threading

_numbers = itertools.count()


def _run(*arguments):
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)}: {result.stderr.strip()}")


def available():
    """Whether namespaces can be made here: None, or the reason why not."""
    name = f"rf-try-{os.getpid()}"
    try:
        _run("ip", "netns", "add", name)
        _run("ip", "netns", "del", name)
    except (RuntimeError, FileNotFoundError) as error:
        return f"no network namespaces: {error}"
    return None if os.path.exists("/dev/net/tun") else "no /dev/net/tun"


class Namespace:
    """One host. `name` is the namespace's; `address` (IPv4) and `mac` are its bridge's."""

    def __init__(self, name, address, mac):
        self.name = name
        self.address = address
        self.mac = mac
        self._taps = 0

    def command(self, *arguments):
        """The command line that runs `arguments` in this namespace."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def socket(self, family, kind):
        """A socket of this namespace, for use in this process."""
        made = []

        def make():  # in a thread of its own: only the calling thread changes its namespace
            libc = ctypes.CDLL(None, use_errno=True)
            clone_newnet = 0x40000000
            with open(f"/run/netns/{self.name}") as namespace:
                if libc.setns(namespace.fileno(), clone_newnet) == 0:
                    made.append(socket.socket(family, kind))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise RuntimeError(f"cannot enter the network namespace {self.name}")
        return made[0]

    def know(self, address, mac):
        """Fixes a neighbour, so that this host never asks for it (a question would find a moved guest)."""
        _run("ip", "-n", self.name, "neighbour", "replace", address, "lladdr", mac, "dev", "br0",
             "nud", "permanent")

    def nic(self, mac):
        """Makes a tap on this host's bridge; returns QEMU's arguments for a virtio NIC on it."""
        tap = f"tap{self._taps}"
        number = self._taps
        self._taps += 1
        _run("ip", "-n", self.name, "tuntap", "add", tap, "mode", "tap")
        _run("ip", "-n", self.name, "link", "set", tap, "master", "br0", "up")
        # No option ROM: the guest does not boot from the network, and the BIOS saves seconds.
        return ["-netdev", f"tap,id=net{number},ifname={tap},script=no,downscript=no,vhost=off",
                "-device", f"virtio-net-pci,netdev=net{number},mac={mac},romfile="]


class Network:
    """`source`, `destination` and `client`; guests use addresses from 10.77.0.100 up, netmask /24."""

    PREFIX = "10.77.0"
    ROLES = ("source", "dest", "client")
    # The switch's, to source and destination.
    HOST_PORTS = ("port1", "port2")

    @classmethod
    def neighbours(cls):
        """(address, MAC) of every host: the same on every Network."""
        return [cls._addresses(number) for number in range(1, len(cls.ROLES) + 1)]

    def __enter__(self):
        stem = f"rf{os.getpid()}-{next(_numbers)}"
        self._switch = f"{stem}-switch"
        self._names = []
        try:
            self._add(self._switch)
            _run("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
            _run("ip", "-n", self._switch, "link", "set", "br0", "up")
            self.source, self.destination, self.client = (
                self._host(f"{stem}-{role}", number)
                for number, role in enumerate(self.ROLES, start=1))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in reversed(self._names):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def _add(self, name):
        _run("ip", "netns", "add", name)
        self._names.append(name)
        _run("ip", "-n", name, "link", "set", "lo", "up")

    def _host(self, name, number):
        self._add(name)
        port = f"port{number}"
        _run("ip", "-n", name, "link", "add", "uplink", "type", "veth", "peer", "name", port,
             "netns", self._switch)
        _run("ip", "-n", self._switch, "link", "set", port, "master", "br0", "up")
        _run("ip", "-n", name, "link", "add", "br0", "type", "bridge", "forward_delay", "0")
        _run("ip", "-n", name, "link", "set", "uplink", "master", "br0", "up")
        address, mac = self._addresses(number)
        _run("ip", "-n", name, "link", "set", "br0", "address", mac, "up")
        _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "br0")
        return Namespace(name, address, mac)

    def separate(self, apart=True):
        """All packets between source and destination vanish from now on, or no more; no link goes down."""
        for port in self.HOST_PORTS:
            _run("ip", "-n", self._switch, "link", "set", port, "type", "bridge_slave", "isolated",
                 "on" if apart else "off")

    @classmethod
    def _addresses(cls, number):
        return f"{cls.PREFIX}.{number}", f"02:00:00:77:00:{number:02x}"
