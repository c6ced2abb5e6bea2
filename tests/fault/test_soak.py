"""The short form of soak.py, whose long form is for a night. SOAK_SEED repeats its faults."""
import os
import random

from .soak import soak

SECONDS = 60


def test_short_soak_loses_doubles_and_corrupts_nothing(world, record_property):
    seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"seed {seed}")
    outcomes = soak(world, random.Random(seed), seconds=SECONDS)
    record_property("told", f"soak, seed {seed}: {world.moves} moves in {world.attempts} attempts {dict(outcomes)}")
    assert outcomes["moved"] > 0
