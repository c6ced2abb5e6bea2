"""The systemd unit in configs/: systemd understands all of it. tests/lab/scenarios/systemd_receive runs it."""
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import ramferry

UNIT = Path(__file__).parents[2] / "configs" / "ramferry-receive.service"
pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze: apt-get install systemd")


def analyze(*arguments):
    result = subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout + result.stderr


def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace("/usr/bin/ramferry", str(ramferry.binary().resolve())))
    code, said = analyze("verify", installed)
    assert code == 0 and UNIT.name not in said, said


def test_the_sandbox_stays_as_tight_as_it_is():
    code, said = analyze("security", "--offline=true", "--threshold=40", UNIT)  # of 100; 0 is the tightest
    assert code == 0, said
