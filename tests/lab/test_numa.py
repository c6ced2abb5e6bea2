"""NUMA on emulated hosts: every scenario of the lab whose name begins with numa_ passes (as test_rdma.py says)."""
import pytest

from tests.lab.labkit import run
from tests.lab.test_rdma import outcomes  # noqa: F401 (a fixture)

SCENARIOS = [run.load(name) for name in run.scenarios() if name.startswith("numa_")]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_numa_scenario(scenario, outcomes):  # noqa: F811
    outcome = outcomes[scenario.name]
    assert outcome.passed, f"{scenario.description}\n{outcome.story}"
