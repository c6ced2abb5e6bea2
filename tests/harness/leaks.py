"""What a visit may have left in a QEMU: file descriptors, migration settings, userfaultfd, its run state.

    before = leaks.snapshot(qemu)
    ...
    assert leaks.differences(before, leaks.snapshot(qemu)) == []
"""
import os
import re
from collections import Counter
from dataclasses import dataclass

# VmFlags of /proc/PID/smaps (Linux: Documentation/filesystems/proc.rst).
_UFFD_FLAGS = {"um": "missing", "uw": "write-protect", "ui": "minor"}


@dataclass
class Snapshot:
    descriptors: Counter   # by what they are: a path, or "socket", "anon_inode:[userfaultfd]", ...
    uffd_mappings: dict    # address range -> userfaultfd modes registered on it
    capabilities: dict     # query-migrate-capabilities
    parameters: dict       # query-migrate-parameters
    status: str            # query-status
    tracer: int            # the PID that traces it, 0 for none


def descriptors(pid):
    """A count of open descriptors by kind. Inode numbers are left out, so that reconnects do not show."""
    found = Counter()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[re.sub(r"^(socket|pipe):\[\d+\]$", r"\1", os.readlink(f"/proc/{pid}/fd/{fd}"))] += 1
        except FileNotFoundError:
            pass
    return found


def uffd_mappings(pid):
    """The mappings on which a userfaultfd is registered."""
    found = {}
    place = None
    with open(f"/proc/{pid}/smaps") as lines:
        for line in lines:
            if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
                place = line.split()[0]
            elif line.startswith("VmFlags:"):
                modes = sorted(_UFFD_FLAGS[flag] for flag in line.split()[1:] if flag in _UFFD_FLAGS)
                if modes:
                    found[place] = modes
    return found


def tracer(pid):
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("TracerPid:"))


def snapshot(qemu):
    """Of a running harness Qemu."""
    capabilities = qemu.qmp.execute("query-migrate-capabilities")
    return Snapshot(
        descriptors=descriptors(qemu.pid),
        uffd_mappings=uffd_mappings(qemu.pid),
        capabilities={entry["capability"]: entry["state"] for entry in capabilities},
        parameters=qemu.qmp.execute("query-migrate-parameters"),
        status=qemu.qmp.status(),
        tracer=tracer(qemu.pid),
    )


def differences(before, after):
    """Lines that say what is not as it was; empty when all is."""
    lines = []
    for kind in sorted(set(before.descriptors) | set(after.descriptors)):
        change = after.descriptors[kind] - before.descriptors[kind]
        if change:
            lines.append(f"descriptors {kind}: {change:+d}")
    for name in ("uffd_mappings", "capabilities", "parameters"):
        old, new = getattr(before, name), getattr(after, name)
        for key in sorted(set(old) | set(new)):
            if old.get(key) != new.get(key):
                lines.append(f"{name} {key}: {old.get(key)} -> {new.get(key)}")
    for name in ("status", "tracer"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            lines.append(f"{name}: {old} -> {new}")
    return lines
