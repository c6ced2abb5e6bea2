"""Medians of what b.sh measured, and what the RDMA channel reaches beside each other thing."""
import collections
import statistics
import sys

rates = collections.defaultdict(list)
for line in open(sys.argv[1], encoding="ascii"):
    kind, rate, _ = line.split()
    rates[kind].append(float(rate))
for kind, values in rates.items():
    print(f"{kind:20} median {statistics.median(values):7.1f} MB/s  ({', '.join(f'{value:.1f}' for value in values)})")
for what, with_what, goal in (("bulk", "ib_write_bw-large", "0.95"), ("scattered", "ib_write_bw-small", "0.8"),
                              ("no-zeros", "ib_write_bw-small", "0.8"), ("bulk", "tcp-bulk", "-"),
                              ("scattered", "tcp-scattered", "-"),
                              ("bulk", "odp-bulk", "-"), ("scattered", "odp-scattered", "-")):
    if "rdma-" + what not in rates or with_what not in rates:
        continue
    ratio = statistics.median(rates["rdma-" + what]) / statistics.median(rates[with_what])
    print(f"ratio of rdma-{what} to {with_what}: {ratio:.2f} (goal {goal})")
