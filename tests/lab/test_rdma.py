"""RDMA between two emulated hosts: every scenario of the lab whose name begins with rdma_ passes.

What a scenario promises is in its scenario.toml and, as checks with words, in its scripts. A failure prints the
ends of the hosts' logs; all of them are in the directory that it names.
"""
import shutil

import pytest

from tests.harness.qemu import BUILD
from tests.lab.labkit import LabError, images, run

SCENARIOS = [run.load(name) for name in run.scenarios() if name.startswith("rdma_")]


@pytest.fixture(scope="session", autouse=True)
def lab():
    """Skips everything where the lab cannot be: no emulator, no images."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("no qemu-system-x86_64 here")
    if not (BUILD / "tests" / "lab" / "rdma_probe").exists():
        pytest.skip("this build has no RDMA (libibverbs-dev, librdmacm-dev)")
    try:
        for scenario in SCENARIOS:
            images.kernel(scenario.kernel, images.root_image(scenario.packages))
    except LabError as error:
        pytest.skip(f"the lab's images cannot be made: {error}")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario, tmp_path):
    assert run.run(scenario, BUILD, tmp_path / scenario.name), scenario.description
