"""Looks at the test guest of this host through its memory file (or as xen:NAME through Xen), as one long-lived process: starting
Python anew for every look takes an emulated host more than a second.

    watch.py FILE running        waits until the guest has filled its memory
    watch.py FILE counter NAME   prints one of the guest's counters (mailbox.h)
    watch.py FILE whole          waits until the guest has checked each page once more, then judges
"""
import os
import sys
import time

sys.path.insert(0, os.environ["LAB_SCENARIO"] + "/files/testguest")
import mailbox  # noqa: E402

_PATIENCE = 300  # seconds


def wait(memory, condition, what):
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        try:
            counters = mailbox.read_counters(memory)
            if condition(counters):
                return counters
        except (FileNotFoundError, mailbox.NotReady):
            pass
        time.sleep(0.2)
    sys.exit(f"waited {_PATIENCE} s in vain for the test guest {what}")


def memory_of(guest):
    if not guest.startswith("xen:"):
        return mailbox.MemoryFile(guest)
    from xen_memory import XenMemory
    return XenMemory(guest.removeprefix("xen:"))


def main():
    memory, command = memory_of(sys.argv[1]), sys.argv[2]
    if command == "running":
        wait(memory, lambda now: now["state"] == mailbox.RUNNING, "to run")
    elif command == "counter":
        print(mailbox.read_counters(memory)[sys.argv[3]])
    else:
        before = mailbox.read_counters(memory)
        # The sweep under way began earlier: the second to end is whole.
        after = wait(memory, lambda now: now["sweeps"] >= before["sweeps"] + 2, "to check its memory")
        if after["bad"] or after["ticks"] <= before["ticks"]:
            sys.exit(f"the guest is not whole, or stands still: {after}")


main()
