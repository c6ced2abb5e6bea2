"""The lab's images: a root file system, and per kernel an initramfs and a module disk. Cached.

    ~/.cache/ramferry/lab/root-KEY/    tree/ root.ext4
    ~/.cache/ramferry/lab/kernel-KEY/  vmlinuz initramfs modules.ext4 release

KEY is a digest of all that decides the content (package names, module list, the code here). The
key does not see new versions of a Debian package: `lab refresh` drops the cache.
"""

import contextlib
import dataclasses
import fcntl
import gzip
import hashlib
import json
import lzma
import os
import pathlib
import shutil
import subprocess
import sys

from . import LabError, packages

# Loaded by the initramfs, in this order after their dependencies.
_EARLY_MODULES = "virtio_pci virtio_blk crc32c_generic ext4 9p 9pnet_virtio".split()
# Available in a running machine to modprobe.
_MODULES = (
    "virtio_net virtio_rng virtio_console e1000 crc32_generic crc32_pclmul crc32c_intel "
    "rdma_rxe siw rdma_ucm rdma_cm ib_uverbs ib_umad ib_ipoib af_packet veth bridge tun dummy loop "
    "sch_netem sch_tbf sch_htb tls msr kvm-amd virtio_scsi sd_mod "
    "xen-privcmd xenfs xen-evtchn xen-gntdev xen-gntalloc xen-netback xen-blkback"
).split()

_INITRAMFS_INIT = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read -r m; do insmod "/modules/$m" 2>/dev/null; done < /modules/order
i=0; while [ ! -b /dev/vdb ] && [ $i -lt 100 ]; do sleep 0.1; i=$((i+1)); done
mount -t ext4 -o rw,noatime /dev/vda /mnt || { echo "LAB: no root disk"; echo b > /proc/sysrq-trigger; }
mount -t ext4 -o ro /dev/vdb /mnt/lib/modules
mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 host /mnt/host
umount /sys; umount /proc; mount --move /dev /mnt/dev
exec switch_root /mnt /bin/bash /host/guest/init
"""


def cache_directory():
    base = os.environ.get("RAMFERRY_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ramferry")
    return pathlib.Path(base) / "lab"


def _say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _digest(*things):
    here = pathlib.Path(__file__).parent
    code = b"".join((here / name).read_bytes() for name in ("images.py", "packages.py"))
    return hashlib.sha256(json.dumps(things).encode() + code).hexdigest()[:16]


@contextlib.contextmanager
def _building(name):
    """Yields (final directory, scratch directory or None if it is there already)."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    final = cache / name
    with open(cache / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():
            yield final, None
            return
        scratch = cache / f"{name}.building"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        yield final, scratch
        scratch.rename(final)


def _make_ext4(tree, image, spare_bytes):
    used = int(subprocess.run(["du", "-s", "-B1", str(tree)], check=True, capture_output=True,
                              text=True).stdout.split()[0])
    mib = (used + used // 8 + spare_bytes) // 2**20 + 16
    mke2fs = shutil.which("mke2fs") or "/sbin/mke2fs"
    done = subprocess.run(
        [mke2fs, "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", str(tree), str(image),
         f"{mib}M"], capture_output=True, text=True)
    if done.returncode != 0:
        raise LabError(f"mke2fs could not make {image}: {done.stderr.strip()}")


def root_image(extra_packages=()):
    """Directory with tree/ and root.ext4."""
    wanted = sorted(set(packages.BASE_PACKAGES) | set(extra_packages))
    with _building(f"root-{_digest(wanted)}") as (final, scratch):
        if scratch:
            _say(f"downloading {len(wanted)} Debian packages and what they depend on")
            debs = packages.download(wanted, scratch / "apt")
            _say(f"unpacking {len(debs)} packages")
            packages.make_root(debs, scratch / "tree")
            _say("making the root disk")
            _make_ext4(scratch / "tree", scratch / "root.ext4", 256 << 20)
            shutil.rmtree(scratch / "apt")
    return final


def hypervisor():
    """Debian's Xen, unpacked for a multiboot loader."""
    with _building(f"xen-{packages.XEN_VERSION}-{_digest()}") as (final, scratch):
        if scratch:
            package = f"xen-hypervisor-{packages.XEN_VERSION}-amd64"
            _say(f"downloading {package}")
            deb = packages.download_alone(package, scratch)
            (scratch / "tree").mkdir()
            packages.unpack(deb, scratch / "tree")
            with gzip.open(next((scratch / "tree/boot").glob("xen-*.gz"))) as packed:
                (scratch / "xen").write_bytes(packed.read())
            shutil.rmtree(scratch / "tree")
            deb.unlink()
    return final / "xen"


@dataclasses.dataclass
class Kernel:
    release: str
    vmlinuz: pathlib.Path
    initramfs: pathlib.Path
    modules: pathlib.Path  # ext4 image, mounted at /lib/modules


def kernel(series, root):
    """Kernel and modules of a Debian kernel series ("6.1", "6.12"); `root` lends depmod."""
    with _building(f"kernel-{series}-{_digest(_EARLY_MODULES, _MODULES)}") as (final, scratch):
        if scratch:
            for package in packages.newest_kernel_packages(series):
                _say(f"downloading {package}")
                deb = packages.download_alone(package, scratch)
                packages.unpack(deb, scratch)
                deb.unlink()
            _build_kernel(scratch, root / "tree")
    return Kernel((final / "release").read_text(), final / "vmlinuz", final / "initramfs",
                  final / "modules.ext4")


def _build_kernel(scratch, root):
    modules_base = scratch / "lib/modules"
    if not modules_base.is_dir():
        modules_base = scratch / "usr/lib/modules"
    release = next(modules_base.iterdir()).name
    source = modules_base / release
    _depmod(root, modules_base.parent.parent, release)
    dependencies = _read_dependencies(source / "modules.dep")

    chosen = scratch / "chosen"
    target = chosen / "lib/modules" / release
    target.mkdir(parents=True)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (source / name).exists():
            shutil.copy(source / name, target / name)
    for path in _closure(dependencies, _EARLY_MODULES + _MODULES):
        _copy_module(source / path, target / _plain(path))
    _depmod(root, chosen, release)
    _make_ext4(chosen / "lib/modules", scratch / "modules.ext4", 0)

    archive = _Cpio()
    for directory in ("bin", "proc", "sys", "dev", "mnt", "modules"):
        archive.directory(directory)
    archive.file("bin/busybox", (root / "usr/bin/busybox").read_bytes(), 0o755)
    for name in ("sh", "mount", "umount", "insmod", "switch_root", "sleep", "echo"):
        archive.symlink(f"bin/{name}", "busybox")
    order = []
    for path in _closure(dependencies, _EARLY_MODULES):
        name = os.path.basename(_plain(path))
        order.append(name)
        archive.file(f"modules/{name}", (target / _plain(path)).read_bytes(), 0o644)
    archive.file("modules/order", "".join(f"{name}\n" for name in order).encode(), 0o644)
    archive.file("init", _INITRAMFS_INIT.encode(), 0o755)
    with gzip.GzipFile(scratch / "initramfs", "wb", compresslevel=1) as out:
        out.write(archive.finish())
    binary = source / "vmlinuz"  # in packages that are split
    shutil.copy(binary if binary.exists() else scratch / "boot" / f"vmlinuz-{release}", scratch / "vmlinuz")
    (scratch / "release").write_text(release)
    for name in ("lib", "usr", "boot", "chosen"):
        shutil.rmtree(scratch / name, ignore_errors=True)


def _depmod(root, base, release):
    subprocess.run([*packages.tool_of(root, "depmod"), "-b", str(base), release], check=True)


def _read_dependencies(path):
    """modules.dep: module name -> (path, paths it needs, the deepest last)."""
    found = {}
    for line in path.read_text().splitlines():
        module, _, needs = line.partition(":")
        name = os.path.basename(_plain(module))[: -len(".ko")].replace("-", "_")
        found[name] = (module, needs.split())
    return found


def _closure(dependencies, names):
    """Module files to load `names` with, in loading order, each once. A name that the kernel has
    built in or does not have is left out: the machine says so when it misses it."""
    ordered = []
    for name in names:
        if name.replace("-", "_") not in dependencies:
            continue
        module, needs = dependencies[name.replace("-", "_")]
        for path in [*reversed(needs), module]:
            if path not in ordered:
                ordered.append(path)
    return ordered


def _plain(path):
    return path.removesuffix(".xz")


def _copy_module(source, target):
    """Uncompressed, so that any insmod can load it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    data = source.read_bytes()
    target.write_bytes(lzma.decompress(data) if source.suffix == ".xz" else data)


class _Cpio:
    """The "newc" archive that Linux takes as an initramfs
    (Documentation/driver-api/early-userspace/buffer-format.rst)."""

    def __init__(self):
        self._out = bytearray()
        self._inode = 0

    def _entry(self, name, mode, data=b""):
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        self._out += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._pad()
        self._out += data
        self._pad()

    def _pad(self):
        self._out += b"\0" * (-len(self._out) % 4)

    def directory(self, name):
        self._entry(name, 0o040755)

    def file(self, name, data, mode):
        self._entry(name, 0o100000 | mode, data)

    def symlink(self, name, target):
        self._entry(name, 0o120777, target.encode())

    def finish(self):
        self._entry("TRAILER!!!", 0)
        return bytes(self._out)
