"""NUMA: every scenario of the lab whose name begins with numa_ passes (as test_rdma.py says), and the plans for real
machines are right."""
import os
import pathlib
import subprocess

import pytest

from tests.harness.qemu import BUILD
from tests.lab.labkit import run
from tests.lab.test_rdma import outcomes  # noqa: F401 (a fixture)

UNIT = pathlib.Path(__file__).resolve().parent.parent / "unit"
SCENARIOS = [run.load(name) for name in run.scenarios() if name.startswith("numa_")]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_numa_scenario(scenario, outcomes):  # noqa: F811
    outcome = outcomes[scenario.name]
    assert outcome.passed, f"{scenario.description}\n{outcome.story}"


@pytest.mark.parametrize("program, tests", [("real_machines_test", "*"),
                                            ("placement_exports_test", "*every_machine*")])
def test_plans_for_real_machines(program, tests):
    fetched = subprocess.run([UNIT / "topologies" / "real_machines"], capture_output=True, text=True)
    if fetched.returncode != 0:
        pytest.skip(f"the exports of real machines cannot be fetched: {fetched.stderr.strip()}")
    done = subprocess.run([BUILD / "tests" / "unit" / program, f"--gtest_filter={tests}"], capture_output=True,
                          text=True, env={**os.environ, "RAMFERRY_TOPOLOGIES": fetched.stdout.strip()})
    assert done.returncode == 0, done.stdout + done.stderr
