"""Takes the ticks of the Linux guest (tests/guests/linux/agent.c) on UDP port 9000, and says on standard output, once
a second, what it knows, as JSON: how many came, the last one, and the longest time without one."""
import json
import socket
import struct
import time

_TICK = struct.Struct("<8s7Q")
_FIELDS = ("number", "uptime_ns", "memory_work", "memory_bad", "disk_reads", "disk_bad", "disk_first_bad_block")


def main():
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("", 9000))
    receiver.settimeout(1)
    count, longest, last, said, tick = 0, 0.0, None, 0.0, {}
    while True:
        try:
            data = receiver.recv(256)
        except TimeoutError:
            data = b""
        now = time.monotonic()
        if len(data) == _TICK.size and data.startswith(b"RFTICK01"):
            tick = dict(zip(_FIELDS, _TICK.unpack(data)[1:]))
            count += 1
            longest = max(longest, now - last if last else 0.0)
            last = now
        if now - said >= 1:
            said = now
            print(json.dumps({"count": count, "longest_gap_s": round(longest, 3), **tick}), flush=True)


main()
