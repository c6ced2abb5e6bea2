"""Reads the test guest's mailbox (mailbox.h, which this module parses) out of its shared memory.

    counters = mailbox.read_counters(guest.memory)
    print(counters["ticks"], counters["bad"])

By hand, on the file that backs the guest's memory from address 0:  python3 mailbox.py /dev/shm/FILE
"""
import re
import struct
from pathlib import Path

_HEADER = (Path(__file__).parent / "mailbox.h").read_text()


def _constants():
    pattern = r"#define TESTGUEST_(\w+) (0x[0-9a-f]+|\d+)u?(?:ll)?\b"
    return {name: int(value, 0) for name, value in re.findall(pattern, _HEADER)}


def _layout(name):
    body = re.search(r"struct %s \{(.*?)\n\};" % name, _HEADER, re.S).group(1)
    fields = re.findall(r"^  uint(32|64)_t\s+(\w+);", body, re.M)
    codes = "".join("I" if width == "32" else "Q" for width, _ in fields)
    return struct.Struct("<" + codes), [field for _, field in fields]


CONSTANTS = _constants()
ADDRESS = CONSTANTS["MAILBOX_ADDRESS"]
FILL_START = CONSTANTS["FILL_START"]
STARTING, FILLING, RUNNING, REFUSED = (
    CONSTANTS["STATE_" + state] for state in ("STARTING", "FILLING", "RUNNING", "REFUSED"))

_HEAD, _HEAD_FIELDS = _layout("TestGuestMailbox")
_PARAMETERS, _PARAMETER_FIELDS = _layout("TestGuestParameters")
_COUNTERS, _COUNTER_FIELDS = _layout("TestGuestCounters")
SIZE = _HEAD.size + _PARAMETERS.size + 2 * _COUNTERS.size


class NotReady(Exception):
    """The guest has not opened its mailbox yet."""


def _head(memory):
    head = dict(zip(_HEAD_FIELDS, _HEAD.unpack(memory.read(ADDRESS, _HEAD.size))))
    if head["magic"] != CONSTANTS["MAILBOX_MAGIC"]:
        raise NotReady("no test guest mailbox at 0x%x" % ADDRESS)
    if head["version"] != CONSTANTS["MAILBOX_VERSION"] or head["size"] != SIZE:
        raise RuntimeError("mailbox version %(version)d of %(size)d bytes: guest and mailbox.h differ" % head)
    return head


def read_parameters(memory):
    """The guest's parameters, a dict by the field names of TestGuestParameters."""
    _head(memory)
    data = memory.read(ADDRESS + _HEAD.size, _PARAMETERS.size)
    return dict(zip(_PARAMETER_FIELDS, _PARAMETERS.unpack(data)))


def read_counters(memory):
    """One whole set of counters, a dict by the field names of TestGuestCounters.

    Works on running and on stopped guests. `memory` has read(address, length). Raises NotReady early on.
    """
    while True:
        publication = _head(memory)["publication"]
        offset = _HEAD.size + _PARAMETERS.size + (publication % 2) * _COUNTERS.size
        data = memory.read(ADDRESS + offset, _COUNTERS.size)
        if _head(memory)["publication"] == publication:
            return dict(zip(_COUNTER_FIELDS, _COUNTERS.unpack(data)))


class MemoryFile:
    """The file that backs guest memory, read without being mapped."""

    def __init__(self, path):
        self._path = path

    def read(self, address, length):
        with open(self._path, "rb") as file:
            file.seek(address)
            return file.read(length)


if __name__ == "__main__":
    import sys
    for part in (read_parameters, read_counters):
        for key, value in part(MemoryFile(sys.argv[1])).items():
            print(f"{key:28} {value}")
