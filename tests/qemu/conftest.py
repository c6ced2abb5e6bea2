"""Fixtures of the end-to-end tests: certificates once a session, a fresh Site for each test."""
import pytest

from tests.harness.deadline import wait_until
from tests.harness.site import Site, make_site_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return make_site_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def site(tmp_path, certificates):
    """A Site that must leave nothing behind: no process, no journal entry."""
    site = Site(tmp_path, certificates)
    yield site
    wait_until(lambda: not site.leftovers(), f"nothing to be left behind, but: {site.leftovers()}", seconds=10)
