"""One guest for all the cases, because each ends with a guest that runs: a World, made anew after a failure."""
import pytest

from tests.fault.world import World
from tests.harness import netns
from tests.harness.site import make_site_certificates


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    if call.when == "call":
        item.failed_in_call = outcome.get_result().failed


def pytest_terminal_summary(terminalreporter):
    """What tests recorded as "told" is shown though they passed."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "told":
                terminalreporter.write_line(value)


@pytest.fixture(scope="session")
def make_world(tmp_path_factory):
    reason = netns.available()
    if reason:
        pytest.skip(reason)
    certificates = make_site_certificates(tmp_path_factory.mktemp("certificates"))
    with netns.Network() as network:
        yield lambda: World(tmp_path_factory.mktemp("world"), certificates, network)


@pytest.fixture(scope="module")
def worlds(make_world):
    """A list of at most one World."""
    worlds = []
    yield worlds
    for world in worlds:
        world.__exit__()


@pytest.fixture
def world(request, make_world, worlds):
    if not worlds:
        worlds.append(make_world())
    yield worlds[0]
    if getattr(request.node, "failed_in_call", True):
        worlds.pop().__exit__()
