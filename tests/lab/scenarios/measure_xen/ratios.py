"""What both hosts measured, and the ratios of ramferry's figures to those of xl, medians.

A: TURN WHO TOTAL-S CPU-S MIB-SENT, a line a move; B: TURN WHO LONGEST-SILENCE-S CPU-S.
"""
import statistics
import sys

figures = {}
for line in open(sys.argv[1], encoding="ascii"):
    turn, who, total, cpu, sent = line.split()
    figures[turn, who] = [float(total), 0.0, float(cpu), float(sent)]
for line in open(sys.argv[2], encoding="ascii"):
    turn, who, gap, cpu = line.split()
    figures[turn, who][1] = float(gap)
    figures[turn, who][2] += float(cpu)
for (turn, who), (total, gap, cpu, sent) in sorted(figures.items()):
    print(f"turn {turn} {who:9} total {total:6.2f} s, longest silence {gap:5.2f} s, both dom0 CPU {cpu:6.1f} s, {sent:7.1f} MiB")
for index, what in enumerate(("total", "longest silence of the guest", "CPU of both dom0", "bytes sent")):
    median = {who: statistics.median(row[index] for (_, by), row in figures.items() if by == who) for who in ("xl", "ramferry")}
    print(f"ratio of ramferry to xl, medians, {what}: {median['ramferry'] / median['xl']:.2f}")
