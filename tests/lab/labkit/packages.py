"""Root trees out of Debian packages: downloaded and unpacked, never installed.

No debootstrap, no maintainer scripts, no root. apt resolves the dependencies against an empty
status file, dpkg-deb unpacks. What comes out is good enough to run programs in, with our own init.
"""

import os
import pathlib
import re
import subprocess

from . import LabError

# Every lab machine has these: a shell, the tools to look around, soft-RoCE, QEMU, Python.
BASE_PACKAGES = (
    "bash dash coreutils util-linux mount mawk grep sed procps hostname libc-bin base-files "
    "iproute2 kmod busybox-static numactl iputils-ping "
    "rdma-core ibverbs-utils ibverbs-providers rdmacm-utils perftest "
    "qemu-system-x86 python3"
).split()

# Added where the machines run Xen: a dom0's tools.
XEN_VERSION = "4.17"
XEN_PACKAGES = [f"xen-utils-{XEN_VERSION}", "xen-utils-common", "xenstore-utils"]

_SKIPPED = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info")


def _apt(directory, *arguments):
    """apt-get with its own state in `directory`: nothing of this host's package state is used
    but the package lists, and nothing is changed."""
    status = directory / "status"
    status.touch()
    command = [
        "apt-get", "-qq", "-y", "--no-install-recommends",
        "-o", f"Dir::State::status={status}",
        "-o", f"Dir::Cache={directory}",
        "-o", f"Dir::Cache::archives={directory}/archives",
        "-o", "APT::Sandbox::User=",
        "-o", "Debug::NoLocking=1",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise LabError(
            f"apt could not get the lab's packages: {done.stderr.strip()}\n"
            "  The lab needs Debian 12 package lists: run `apt-get update` as root first."
        )
    return done.stdout


def download(packages, directory):
    """The packages and all they depend on, as .deb files in directory/archives."""
    directory = pathlib.Path(directory)
    (directory / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    _apt(directory, "--download-only", "install", *packages)
    return sorted((directory / "archives").glob("*.deb"))


def download_alone(package, directory):
    """One package without its dependencies."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["apt-get", "-qq", "-o", "APT::Sandbox::User=", "download", package],
        cwd=directory, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        raise LabError(f"apt could not download {package}: {done.stderr.strip()}")
    return next(directory.glob(f"{package}_*.deb"))


def unpack(deb, root):
    """Lays the files of one package over `root`."""
    producer = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE)
    exclude = [f"--exclude={path}" for path in _SKIPPED]
    consumer = subprocess.run(
        ["tar", "-C", str(root), "--keep-directory-symlink", "--no-same-owner", *exclude, "-xf", "-"],
        stdin=producer.stdout, capture_output=True, text=True,
    )
    producer.stdout.close()
    if producer.wait() != 0 or consumer.returncode != 0:
        raise LabError(f"cannot unpack {deb}: {consumer.stderr.strip()}")


def make_root(debs, root):
    """A merged-/usr root tree with the files of `debs`."""
    root = pathlib.Path(root)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for deb in debs:
        unpack(deb, root)
    for name in ("proc", "sys", "dev", "run", "tmp", "host", "root", "mnt", "lib/modules"):
        (root / name).mkdir(exist_ok=True)
    # What the maintainer scripts would have made, as far as anything here needs it.
    for link, target in (("usr/bin/awk", "mawk"), ("usr/bin/sh", "bash")):
        path = root / link
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n10.9.0.1 a\n10.9.0.2 b\n")


def newest_kernel_packages(series):
    """The names of the packages of Debian's newest kernel of a series, e.g. "6.12"."""
    done = subprocess.run(["apt-cache", "pkgnames", f"linux-image-{series}"],
                          capture_output=True, text=True)
    pattern = re.compile(rf"linux-image-{re.escape(series)}\.(\d+)(-(\d+))?(\+\w+)?-amd64$")
    found = []
    for name in done.stdout.split():
        match = pattern.match(name)
        if match:
            found.append((int(match[1]), int(match[3] or 0), name))
    if not found:
        raise LabError(
            f"no Debian kernel of series {series} in the package lists.\n"
            "  6.1 comes with Debian 12; 6.12 with bookworm-security or bookworm-backports: add "
            "one of them to the apt sources and run `apt-get update`."
        )
    image = max(found)[2]
    # Since Linux 7.1 the image and its modules are packages of their own.
    parts = [image.replace("linux-image", part, 1) for part in ("linux-base", "linux-binary", "linux-modules")]
    known = subprocess.run(["apt-cache", "pkgnames", "linux-"], capture_output=True, text=True).stdout.split()
    return [image, *(part for part in parts if part in known)]


def tool_of(root, name):
    """Argument list that runs a kmod program (depmod, modprobe) out of the tree, so that the
    building host needs none."""
    library = os.path.join(root, "usr/lib/x86_64-linux-gnu")
    loader = os.path.join(library, "ld-linux-x86-64.so.2")
    return [loader, "--argv0", name, "--library-path", library, os.path.join(root, "usr/bin/kmod")]
