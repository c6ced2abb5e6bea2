"""Moves a guest and prints BUSY-BEFORE BUSY-AFTER TOTAL-MS DOWNTIME-MS: hundredths of a second in which this host did
something, and what the mover says itself.

qemu URI                   has QEMU migrate the guest there
ramferry REPORT COMMAND... runs the command, which writes the report
ratios A B                 of the figures of both hosts
"""
import json
import socket
import statistics
import subprocess
import sys
import time


def busy():
    user, nice, system, _, _, irq, soft_irq = map(int, open("/proc/stat", encoding="ascii").readline().split()[1:8])
    return user + nice + system + irq + soft_irq


def qemu(uri):
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
    before = busy()
    execute("migrate", uri=uri)
    while (now := execute("query-migrate"))["status"] not in ("completed", "failed", "cancelled"):
        time.sleep(0.2)
    after = busy()
    if now["status"] != "completed":
        sys.exit(f"QEMU: {now}")
    print(before, after, now["total-time"], now["downtime"])


def ramferry(report, *command):
    before = busy()
    subprocess.run(command, check=True)
    after = busy()
    said = json.load(open(report, encoding="utf-8"))
    print(before, after, said["total_ms"], said["downtime_ms"])


def ratios(path_a, path_b):
    figures = {}
    for line in open(path_a, encoding="ascii"):
        turn, who, before, after, total, downtime = line.split()
        figures[turn, who] = [float(total), float(downtime), (float(after) - float(before)) / 100]
    for line in open(path_b, encoding="ascii"):
        turn, who, before, after = line.split()
        figures[turn, who][2] += (float(after) - float(before)) / 100
    for (turn, who), (total, downtime, cpu) in sorted(figures.items()):
        print(f"turn {turn} {who:9} total {total / 1000:6.2f} s, downtime {downtime:6.0f} ms, both hosts busy {cpu:6.2f} s")
    for index, what in enumerate(("total", "downtime", "CPU of both hosts")):
        median = {who: statistics.median(row[index] for (_, by), row in figures.items() if by == who)
                  for who in ("qemu", "ramferry")}
        print(f"ratio of ramferry to QEMU, medians, {what}: {median['ramferry'] / median['qemu']:.2f}")


{"qemu": qemu, "ramferry": ramferry, "ratios": ratios}[sys.argv[1]](*sys.argv[2:])
