"""The short form of soak.py: its long form is for a night."""
import random

from .soak import soak

SECONDS = 60


def test_short_soak_loses_doubles_and_corrupts_nothing(world):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    outcomes = soak(world, random.Random(seed), seconds=SECONDS)
    print(f"seed {seed}: {world.moves} moves in {world.attempts} attempts {dict(outcomes)}")
    assert outcomes["moved"] > 0
