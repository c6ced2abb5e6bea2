"""The fixtures of the other end-to-end tests; a World whose guest moves by DPDK ports."""
import pytest

from tests.fault.conftest import pytest_runtest_makereport, world, worlds  # noqa: F401
from tests.fault.world import World
from tests.harness.site import HOSTS, make_site_certificates
from tests.qemu.conftest import certificates, site  # noqa: F401
from .lan import Lan


@pytest.fixture(scope="session")
def make_world(tmp_path_factory):
    authority = make_site_certificates(tmp_path_factory.mktemp("authority"))
    with Lan() as lan:
        configs = {host: lan.config(host) for host in HOSTS}
        yield lambda: World(tmp_path_factory.mktemp("world"), authority, lan, configs=configs)
