"""Ramferry's command line, as a test uses it.

    certificates = make_certificates(tmp_path / "certificates")
    with Receiver(config_text, ["--port", "0", ...]) as receiver:
        result = migrate(source.ramferry_socket, f"127.0.0.1:{receiver.port}", ["--ca", ...])
        assert result.exit_code == 0 and result.report["downtime_ms"] > 0

`site.py` puts these together for the usual case.

The binary is $RAMFERRY, else cli/ramferry of the build (qemu.BUILD).
"""
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .deadline import TimedOut, wait_until
from .qemu import BUILD


def binary():
    """Path of the ramferry program; raises FileNotFoundError when it is not built."""
    path = Path(os.environ.get("RAMFERRY", BUILD / "cli" / "ramferry"))
    if not path.exists():
        raise FileNotFoundError(f"{path}: build the target `ramferry`, or set RAMFERRY")
    return path


def _in_namespace(netns):
    return ["ip", "netns", "exec", netns] if netns else []


def run(*arguments, netns=None, seconds=120.0):
    """Runs one command to its end; returns subprocess.CompletedProcess with text output."""
    return subprocess.run(_in_namespace(netns) + [str(binary()), *map(str, arguments)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)


@dataclass
class Migration:
    exit_code: int
    report: dict    # what --json wrote; {} if it wrote nothing
    stdout: str
    stderr: str


class MigrateProcess:
    """A `ramferry migrate` under way; wait() for its end, or signal it through `process`."""

    def __init__(self, guest, destination, arguments=(), netns=None):
        fd, self._json = tempfile.mkstemp(prefix="ramferry-report-")
        os.close(fd)
        command = [str(binary()), "migrate", str(guest), str(destination), "--json", self._json]
        self.process = subprocess.Popen(
            _in_namespace(netns) + command + [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait(self, seconds=120.0):
        """Returns the Migration. Kills the program and raises TimedOut when it does not end."""
        try:
            stdout, stderr = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            stdout, stderr = self.process.communicate()
            raise TimedOut(f"ramferry migrate did not end in {seconds:g} s\n{stdout}{stderr}") from None
        finally:
            text = Path(self._json).read_text() if os.path.exists(self._json) else ""
            Path(self._json).unlink(missing_ok=True)
        return Migration(self.process.returncode, json.loads(text) if text.strip() else {}, stdout, stderr)


def migrate(guest, destination, arguments=(), netns=None, seconds=120.0):
    """Runs `ramferry migrate GUEST DESTINATION --json FILE` to its end."""
    return MigrateProcess(guest, destination, arguments, netns).wait(seconds)


class Receiver:
    """A `ramferry receive --config FILE`: ready when `ready(log)` holds for what it has printed so far.

    `config` is the text of the TOML file. Ends the program, and only it, on leaving the `with`. `port` is the
    control port that it listens on, by its own words; `config_path` its configuration file.
    """

    def __init__(self, config, arguments=(), netns=None, ready=lambda log: "listening" in log, seconds=30.0):
        self._directory = Path(tempfile.mkdtemp(prefix="ramferry-receive-"))
        self.config_path = self._directory / "receive.toml"
        self.config_path.write_text(config)
        self._log = self._directory / "log"
        self._command = _in_namespace(netns) + [str(binary()), "receive", "--config", str(self.config_path),
                                                *map(str, arguments)]
        self._ready = ready
        self._seconds = seconds
        self.process = None

    def __enter__(self):
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL"] + self._command,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(lambda: self._ready(self.log) or self.process.poll() is not None,
                       "ramferry receive to listen", self._seconds)
            if self.process.poll() is not None:
                raise RuntimeError(f"ramferry receive ended at once: {self.log}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def port(self):
        return int(re.search(r"listening on \S+ port (\d+)", self.log).group(1))

    def wait_log(self, text, seconds=60.0):
        """Until it has printed `text`."""
        wait_until(lambda: text in self.log, f"ramferry receive to say '{text}'; it said: {self.log}", seconds)

    @property
    def log(self):
        """All that it has printed so far."""
        return self._log.read_text(errors="replace")


def make_certificates(directory, arguments=(), seconds=60.0):
    """Runs `ramferry certs` for a CA and host certificates in `directory`; returns the directory."""
    result = run("certs", directory, *arguments, seconds=seconds)
    if result.returncode != 0:
        raise RuntimeError(f"ramferry certs: {result.stdout}{result.stderr}")
    return Path(directory)
