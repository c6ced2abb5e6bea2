"""Builds the Linux guest: Debian's packaged kernel, and an initramfs with busybox and the agent.

Nothing is installed: packages are downloaded with apt and unpacked. What is built is kept in $RAMFERRY_CACHE
(else ~/.cache/ramferry) and made anew when a source changes.

    images = build()        # images.kernel, images.initrd

By hand:  python3 tests/guests/linux/build.py
"""
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
MODULES = ["virtio_pci", "virtio_net", "virtio_blk", "xen_netfront"]
PAGE = b"<html><body>ramferry linux guest</body></html>\n"


@dataclass
class Images:
    kernel: Path
    initrd: Path


class CannotBuild(Exception):
    """What is missing, and what to do about it."""


def cache_directory():
    return Path(os.environ.get("RAMFERRY_CACHE", Path.home() / ".cache" / "ramferry"))


def _run(*arguments, cwd=None):
    result = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True)
    if result.returncode != 0:
        raise CannotBuild(f"{' '.join(map(str, arguments))}: {result.stderr.strip()}")
    return result.stdout


def _unpacked(package):
    """The unpacked package's directory in the cache; downloads it once a version."""
    policy = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True).stdout
    candidate = re.search(r"Candidate: (\S+)", policy)
    if not candidate or candidate.group(1) == "(none)":
        raise CannotBuild(f"apt knows no package {package}: run `apt-get update` as root")
    place = cache_directory() / f"{package}_{candidate.group(1).replace(':', '_')}"
    if place.exists():
        return place
    cache_directory().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_directory()) as work:
        _run("apt-get", "-o", "APT::Sandbox::User=root", "download", package, cwd=work)
        archive = next(Path(work).glob("*.deb"))
        _run("dpkg-deb", "-x", archive, Path(work) / "tree")
        _move(Path(work) / "tree", place)
    return place


def _move(source, place):
    """Into the cache in one step. Whoever comes second keeps what is there."""
    try:
        os.rename(source, place)
    except OSError:
        if not place.exists():
            raise


def _kernel_package():
    depends = _run("apt-cache", "depends", "--no-recommends", KERNEL_META_PACKAGE)
    package = re.search(r"Depends: (linux-image-\d\S+)", depends)
    if not package:
        raise CannotBuild(f"apt does not say what {KERNEL_META_PACKAGE} depends on: run `apt-get update`")
    return package.group(1)


def _module_closure(tree):
    """(name, bytes) of each module wanted and of all that it depends on, in loading order.

    The dependencies are in the modules themselves: the package has no modules.dep before it is installed.
    """
    files = {path.stem.replace("-", "_"): path for path in tree.glob("lib/modules/*/kernel/**/*.ko")}
    order = {}

    def add(name):
        if name in order:
            return
        if name not in files:
            raise CannotBuild(f"the kernel package has no module {name}")
        data = files[name].read_bytes()
        depends = re.search(rb"(?<=\0)depends=([^\0]*)\0", data)
        for other in depends.group(1).decode().split(",") if depends else []:
            if other:
                add(other.replace("-", "_"))
        order[name] = data

    for name in MODULES:
        add(name)
    return list(order.items())


def _busybox():
    """A statically linked busybox: this machine's, or else the package's."""
    installed = Path("/bin/busybox")
    if installed.exists() and b"/ld-linux" not in installed.read_bytes()[:4096]:
        return installed.read_bytes()
    return (_unpacked("busybox-static") / "bin" / "busybox").read_bytes()


def _agent():
    with tempfile.TemporaryDirectory() as work:
        binary = Path(work) / "agent"
        _run(os.environ.get("CC", "gcc"), "-static", "-Os", "-pthread", "-Wall", "-Wextra", "-Werror", "-s",
             "-o", binary, HERE / "agent.c")
        return binary.read_bytes()


class _Cpio:
    """An initramfs image in the "newc" format (Linux: Documentation/driver-api/early-userspace)."""

    def __init__(self):
        self._data = bytearray()
        self._inode = 0

    def directory(self, name):
        self._add(name, 0o040755, b"")

    def file(self, name, content, mode=0o644):
        self._add(name, 0o100000 | mode, content)

    def console(self):
        self._add("dev/console", 0o020600, b"", device=(5, 1))

    def finish(self):
        self._add("TRAILER!!!", 0, b"")
        return bytes(self._data)

    def _add(self, name, mode, content, device=(0, 0)):
        self._inode += 1
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        self._data += b"070701" + b"".join(b"%08x" % field for field in fields)
        self._data += name.encode() + b"\0"
        self._pad()
        self._data += content
        self._pad()

    def _pad(self):
        self._data += bytes(-len(self._data) % 4)


def _initramfs(kernel_tree):
    modules = _module_closure(kernel_tree)
    image = _Cpio()
    for name in ("bin", "dev", "proc", "sys", "www", "modules"):
        image.directory(name)
    image.console()
    image.file("init", (HERE / "init").read_bytes(), 0o755)
    image.file("bin/busybox", _busybox(), 0o755)
    image.file("bin/agent", _agent(), 0o755)
    image.file("www/index.html", PAGE)
    for name, data in modules:
        image.file(f"modules/{name}.ko", data)
    image.file("modules/order", "".join(f"{name}\n" for name, _ in modules).encode())
    return image.finish()


def build():
    """The images, from the cache or newly made. Raises CannotBuild."""
    for program in ("apt-get", "dpkg-deb", os.environ.get("CC", "gcc")):
        if not shutil.which(program):
            raise CannotBuild(f"no {program} here: the Linux guest is made of Debian packages")
    package = _kernel_package()
    tree = _unpacked(package)
    kernel = next((tree / "boot").glob("vmlinuz-*"))
    sources = b"".join((HERE / name).read_bytes() for name in ("agent.c", "init", "build.py"))
    initrd = cache_directory() / f"{tree.name}-{hashlib.sha256(sources).hexdigest()[:16]}.img"
    if not initrd.exists():
        with tempfile.TemporaryDirectory(dir=cache_directory()) as work:
            made = Path(work) / "initrd"
            made.write_bytes(gzip.compress(_initramfs(tree), 1, mtime=0))
            _move(made, initrd)
    return Images(kernel, initrd)


if __name__ == "__main__":
    images = build()
    print(f"kernel {images.kernel}\ninitrd {images.initrd}")
