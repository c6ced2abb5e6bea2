"""Two hosts' worth of Ramferry on one machine: identities, state directories, receivers, moves.

    site = Site(directory, make_site_certificates(directory / "certificates"))
    with Qemu("guest", ...) as source, Qemu("guest", awaited=True, ...) as target:
        with site.receiver(target) as receiver:
            result = site.migrate(source, receiver, "--verify")
            assert result.exit_code == 0
        target.arrive()

The hosts are called "source" and "destination"; their certificates also hold the addresses of this machine and
of a netns.Network.
"""
import itertools
import os
import socket
from pathlib import Path

from . import ramferry
from .netns import Network
from .qemu import processes_with

HOSTS = ("source", "destination")


def make_site_certificates(directory):
    """An authority and a certificate for each of HOSTS."""
    addresses = [f"localhost,127.0.0.1,::1,{address}" for address, _ in Network.neighbours()]
    arguments = [word for host, names in zip(HOSTS, addresses) for word in ("--host", f"{host}={names}")]
    return ramferry.make_certificates(directory, arguments)


class Site:
    def __init__(self, directory, certificates):
        self.directory = Path(directory)
        self.certificates = Path(certificates)
        self._numbers = itertools.count()

    def identity(self, host, certificates=None):
        """The flags that make a command be this host's."""
        return self.credentials(host, certificates) + ["--state-dir", self.state_directory(host)]

    def credentials(self, host, certificates=None):
        certificates = certificates or self.certificates
        return ["--ca", certificates / "ca.pem", "--cert", certificates / f"{host}.pem",
                "--key", certificates / f"{host}-key.pem"]

    def state_directory(self, host):
        return self.directory / f"state-{host}"

    def runtime_directory(self, host):
        return self.directory / f"run-{host}"

    def define(self, definition):
        """Writes a guest definition; returns its path."""
        path = self.directory / f"guest{next(self._numbers)}.toml"
        path.write_text(definition)
        return path

    def receiver(self, *targets, qmp=None, host="destination", arguments=(), netns=None, config=""):
        """A `ramferry receive` for awaited Qemus (or texts of definitions), or for a QEMU that waits at `qmp`."""
        flags = ["--port", "0", "--runtime-dir", self.runtime_directory(host), *self.identity(host), *arguments]
        for target in targets:
            definition = target if isinstance(target, str) else target.definition()
            flags += ["--guest", self.define(definition)]
        if qmp:
            flags += ["--qmp", qmp]
        return ramferry.Receiver(config, flags, netns=netns)

    def start_migrate(self, source, receiver, *arguments, host="source", address="127.0.0.1", netns=None,
                      certificates=None):
        """Begins a move; returns a ramferry.MigrateProcess."""
        return ramferry.MigrateProcess(f"qemu:{source.ramferry_socket}", f"{address}:{receiver.port}",
                                       [*self.identity(host, certificates), *arguments], netns=netns)

    def migrate(self, source, receiver, *arguments, seconds=120.0, **keywords):
        """Moves a guest; returns a ramferry.Migration."""
        return self.start_migrate(source, receiver, *arguments, **keywords).wait(seconds)

    def check(self, guest=None, host="source", receiver=None):
        """`ramferry check`, of this host, or also of a Qemu, or also of its destination."""
        named = [f"qemu:{guest.ramferry_socket}"] if guest else []
        if receiver:
            named.append(f"127.0.0.1:{receiver.port}")
        return ramferry.run("check", *named, *self.identity(host))

    def status(self, host):
        """What `ramferry status` says on that host."""
        result = ramferry.run("status", "--state-dir", self.state_directory(host))
        assert result.returncode == 0, result.stderr
        return result.stdout

    def leftovers(self):
        """What this site has left behind outside its directory, and in its journals: lines, none when clean."""
        return [f"process {pid}" for pid in processes_with(str(self.directory))] + self.leftovers_in_journals()

    def leftovers_in_journals(self):
        """Files in the state directories, and what is in them."""
        return [f"{path.name}: {path.read_text()}" for host in HOSTS
                for path in self.state_directory(host).glob("*")]


def free_port():
    """A port on which, a moment ago, nobody listened."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def blocks_of(path):
    """Bytes of memory or disk that a file uses; 0 when it does not exist."""
    return os.stat(path).st_blocks * 512 if os.path.exists(path) else 0
