"""Fixtures of the end-to-end tests: certificates once a session, a fresh Site for each test."""
import contextlib

import pytest

from tests.harness.deadline import TimedOut, wait_until
from tests.harness.site import Site, make_site_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return make_site_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def site(tmp_path, certificates):
    """A Site that must leave nothing behind: no process, no journal entry."""
    site = Site(tmp_path, certificates)
    yield site
    with contextlib.suppress(TimedOut):
        wait_until(lambda: not site.leftovers(), "nothing to be left behind", seconds=10)
    assert site.leftovers() == []
