"""Has QEMU migrate the guest to the URI given, and prints what QEMU says about it."""
import json
import socket
import sys
import time

connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/guest.qmp")
stream = connection.makefile("rw")
stream.readline()


def execute(command, **arguments):
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "return" in answer:
            return answer["return"]
        if "error" in answer:
            sys.exit(f"{command}: {answer['error']['desc']}")


execute("qmp_capabilities")
execute("migrate-set-parameters", **{"max-bandwidth": 1 << 40, "downtime-limit": 2000})
execute("migrate", uri=sys.argv[1])
while True:
    now = execute("query-migrate")
    if now["status"] in ("completed", "failed", "cancelled"):
        break
    time.sleep(0.2)
if now["status"] != "completed":
    sys.exit(f"QEMU: {now}")
print(f"QEMU: total {now['total-time']} ms, downtime {now['downtime']} ms, {now['ram']['transferred'] >> 20} MiB sent, "
      f"{now['ram']['dirty-sync-count']} rounds")
