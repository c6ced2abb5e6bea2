"""The time of round 1 by 1, 2 and 4 workers beside that by one: the median of the turns, and the least and the most.

    ratios.py DIRECTORY    of KIND.TURN.WORKERS.json, reports of `ramferry migrate`
"""
import json
import pathlib
import statistics
import sys

rounds = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.*.*.json")):
    kind, turn, workers, _ = path.name.split(".")
    report = json.loads(path.read_text())
    assert report["workers"] == int(workers) == len(report["placement"]), path
    rounds[kind, int(workers), int(turn)] = report["rounds"][0]
for kind in ("scan", "send"):
    pages = rounds[kind, 1, 1]
    print(f"{kind}: {pages['pages']} pages with data, {pages['zero_pages']} of zeros")
    turns = sorted({turn for other, _, turn in rounds if other == kind})
    for workers in (1, 2, 4):
        ratios = [rounds[kind, workers, turn]["ms"] / rounds[kind, 1, turn]["ms"] for turn in turns]
        print(f"  {workers} workers: {statistics.median(ratios):.2f} of the time of one ({min(ratios):.2f} to {max(ratios):.2f})")
