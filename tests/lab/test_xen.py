"""Ramferry in the dom0s of emulated Xen hosts: every scenario of the lab whose name begins with xen_ passes (as
test_rdma.py says)."""
import subprocess

import pytest

from tests.harness.qemu import BUILD
from tests.lab.labkit import run
from tests.lab.test_rdma import outcomes  # noqa: F401 (a fixture)

SCENARIOS = [run.load(name) for name in run.scenarios() if name.startswith("xen_")]


@pytest.fixture(scope="session")
def xen_is_built():
    said = subprocess.run([BUILD / "cli/ramferry", "check", "xen:guest"], capture_output=True, text=True)
    if "built without Xen" in said.stdout + said.stderr:
        pytest.skip("this build knows no Xen: libxen-dev is missing")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_xen_scenario(scenario, xen_is_built, outcomes):  # noqa: F811
    outcome = outcomes[scenario.name]
    assert outcome.passed, f"{scenario.description}\n{outcome.story}"
