#!/usr/bin/python3
"""Moves a guest to and fro while things go wrong at random moments: none may be lost, doubled or corrupted.

    /usr/bin/python3 -m tests.fault.soak 200               200 moves
    /usr/bin/python3 -m tests.fault.soak 200 --seed 7      the same faults once more

Prints the seed first, what was done to each attempt, and the number of moves at the end. Needs root.
"""
import argparse
import collections
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.fault import faults
from tests.fault.world import World
from tests.harness.netns import Network
from tests.harness.site import make_site_certificates

# How long an attempt takes when nothing is done to it, about: faults come within that.
ATTEMPT_SECONDS = 1.2
# A guest that was lost with its QEMU is no guest that moves: rarely.
WEIGHTS = {faults.kill_source: 4, faults.kill_destination: 4, faults.kill_source_qemu: 1,
           faults.kill_destination_qemu: 2, faults.drop_packets: 1, faults.reset_connections: 3,
           faults.interrupt_source: 3, faults.terminate_destination: 3, faults.kill_both_ramferries: 2}


def soak(world, random_numbers, moves=None, seconds=None, say=print):
    """Until that many moves, or for that long. Returns a Counter of what became of the attempts."""
    outcomes = collections.Counter()
    start = time.monotonic()
    while (moves is None or world.moves < moves) and (seconds is None or time.monotonic() - start < seconds):
        if random_numbers.random() < 0.4:
            fault, delay = None, 0.0
        else:
            fault = random_numbers.choices(list(WEIGHTS), WEIGHTS.values())[0]
            delay = random_numbers.random() * ATTEMPT_SECONDS
        began = time.monotonic()
        plain = random_numbers.random() < 0.5
        attempt = world.begin(arguments=("--data-encryption", "off") if plain else ())
        if fault:
            time.sleep(delay)
            fault(attempt)
        outcome = world.end(attempt)
        outcomes[outcome] += 1
        say(f"attempt {world.attempts}, {'plain' if plain else 'encrypted'}: {fault.__name__ if fault else 'no fault'} "
            f"after {delay * 1e3:.0f} ms: {outcome} ({time.monotonic() - began:.1f} s)", flush=True)
    world.assert_clean()
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("moves", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # and cleans up
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="ramferry-soak-") as directory:
        certificates = make_site_certificates(Path(directory) / "certificates")
        with Network() as network, World(Path(directory), certificates, network) as world:
            outcomes = soak(world, random.Random(arguments.seed), moves=arguments.moves)
            print(f"seed {arguments.seed}: {world.moves} moves in {world.attempts} attempts {dict(outcomes)}; "
                  "none lost, doubled or corrupted")


if __name__ == "__main__":
    main()
