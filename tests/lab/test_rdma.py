"""Ramferry on emulated hosts: every scenario of the lab whose name begins with rdma_ or tracking_ passes.

What a scenario promises is in its scenario.toml and, as checks with words, in its scripts. Scenarios share
machines where they can (labkit/run.py), so the first test of a group runs all of it: `-k` runs only what it
names. A failure prints the ends of the hosts' logs; all of them are in the directory that it names.
"""
import shutil

import pytest

from tests.harness.qemu import BUILD
from tests.lab.labkit import LabError, images, run

SCENARIOS = [run.load(name) for name in run.scenarios() if name.startswith(("rdma_", "tracking_"))]


def _skip_where_the_lab_cannot_be(scenarios):
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64 here: apt-get install qemu-system-x86")
    if not (BUILD / "tests" / "lab" / "rdma_probe").exists():
        pytest.skip("this build has no tests/lab/rdma_probe: libibverbs-dev and librdmacm-dev are missing, or it "
                    "was not built")
    try:
        for scenario in scenarios:
            images.kernel(scenario.kernel, scenario.root_image())
            if scenario.xen:
                images.hypervisor()
    except LabError as error:
        pytest.skip(f"the lab's images cannot be made: {error}")


@pytest.fixture(scope="session")
def outcomes(request, tmp_path_factory):
    """name -> Outcome of all scenarios that this session was asked for."""
    wanted = [item.callspec.params["scenario"] for item in request.session.items
              if "outcomes" in getattr(item, "fixturenames", ())]
    _skip_where_the_lab_cannot_be(wanted)
    return run.run(wanted, BUILD, tmp_path_factory.mktemp("lab"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario, outcomes):
    outcome = outcomes[scenario.name]
    assert outcome.passed, f"{scenario.description}\n{outcome.story}"
