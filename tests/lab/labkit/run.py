"""One run of a scenario: machines on, scripts run, results back, machines off."""

import dataclasses
import os
import pathlib
import shutil
import tempfile
import time
import tomllib

from . import LabError, images, payload
from .machine import Machine

LAB = pathlib.Path(__file__).resolve().parent.parent
_NAMES = ("a", "b")
# Exit codes of hosts that have none of their own.
_DIED, _STOPPED = 125, 126
_MOMENT = 10  # seconds


@dataclasses.dataclass
class Scenario:
    """scenarios/NAME/scenario.toml. Times in seconds."""

    name: str
    directory: pathlib.Path
    description: str = ""
    kernel: str = "6.12"  # Debian kernel series
    hosts: int = 2  # 1 or 2: a, or a and b; each runs its a.sh or b.sh
    memory: str = "768M"
    cpus: int = 1
    mtu: int = 4300  # of the cable: carries RDMA packets of 4096 bytes
    rdma: bool = True  # soft-RoCE on the cable before the scripts start
    timeout: int = 300  # of the whole run, booting included
    packages: list = dataclasses.field(default_factory=list)  # Debian packages besides the usual
    programs: list = dataclasses.field(default_factory=list)  # of this build, below --build-dir
    files: list = dataclasses.field(default_factory=list)  # of the source tree, to /host/files
    kernel_arguments: str = ""


def scenarios():
    return sorted(path.parent.name for path in (LAB / "scenarios").glob("*/scenario.toml"))


def load(name):
    directory = LAB / "scenarios" / name
    try:
        fields = tomllib.loads((directory / "scenario.toml").read_text())
    except FileNotFoundError:
        raise LabError(f"no scenario {name}; there are: {', '.join(scenarios())}") from None
    known = {field.name for field in dataclasses.fields(Scenario)}
    for key in fields:
        if key not in known:
            raise LabError(f"{directory}/scenario.toml: unknown key {key}")
    return Scenario(name=name, directory=directory, **fields)


def run(scenario, build_directory, results, accelerator="tcg"):
    """Runs it; True when every host's script ended with 0. Everything that came back is in the
    directory `results` afterwards, which must not exist or be empty."""
    results = pathlib.Path(results).resolve()
    if results.exists() and any(results.iterdir()):
        raise LabError(f"{results} is not empty: name a new directory for the results")
    root = images.root_image(scenario.packages)
    kernel = images.kernel(scenario.kernel, root)
    began = time.monotonic()
    for attempt in (1, 2):
        outcome, panicked = _attempt(scenario, root, kernel, build_directory, results, accelerator)
        if not panicked or attempt == 2:
            break
        # The emulator itself gets an instruction wrong now and then; a bug of ours does not panic
        # the kernel, so once more is fair. Said aloud, because a kernel bug would look the same.
        print(f"lab: {scenario.name}: the kernel of {', '.join(panicked)} panicked under emulation; "
              "once more", flush=True)
        shutil.move(results, f"{results}.panic")
    passed = all(code == 0 for code, _ in outcome.values())
    for name, (code, said) in outcome.items():
        print(f"lab: {scenario.name} {name}: {said}")
        if code != 0:
            _show_end(results, name)
    print(f"lab: {scenario.name}: {'PASS' if passed else 'FAIL'} in {time.monotonic() - began:.0f} s, "
          f"Linux {kernel.release}, results in {results}")
    return passed


def _attempt(scenario, root, kernel, build_directory, results, accelerator):
    """(outcome of each host, names of the hosts whose kernel panicked)"""
    shared = pathlib.Path(tempfile.mkdtemp(prefix="ramferry-lab-"))
    try:
        _prepare(shared, scenario, root, build_directory)
        outcome = _drive(shared, scenario, root, kernel, accelerator)
        _bring_back(shared, results)
    finally:
        shutil.rmtree(shared, ignore_errors=True)
    panicked = [name for name, (code, _) in outcome.items() if code == _DIED
                and "Kernel panic" in (results / f"console.{name}").read_text(errors="replace")]
    return outcome, panicked


def _prepare(shared, scenario, root, build_directory):
    shutil.copytree(LAB / "guest", shared / "guest")
    shutil.copytree(scenario.directory, shared / "scenario")
    for name in ("flags", "requests", "results", "files"):
        (shared / name).mkdir()
    for name in _NAMES[:scenario.hosts]:
        (shared / "results" / name).mkdir()
    for path in scenario.files:
        source = LAB.parent.parent / path
        if source.is_dir():
            shutil.copytree(source, shared / "files" / source.name)
        else:
            shutil.copy(source, shared / "files")
    payload.stage([build_directory / path for path in scenario.programs], root / "tree", shared)


def _drive(shared, scenario, root, kernel, accelerator):
    """name -> (exit code, what happened in words)."""
    deadline = time.monotonic() + scenario.timeout
    machines = {}
    killed = set()
    failed = False
    try:
        for index, name in enumerate(_NAMES[:scenario.hosts], 1):
            machine = Machine(name, index, scenario, root, kernel, shared, accelerator)
            machines[name] = machine
            machine.power_on()
        while any(machine.is_on() for machine in machines.values()):
            if time.monotonic() > deadline or _died(shared, machines, killed):
                break
            if not failed and _failed(shared, machines):
                # The other host most likely waits for this one: it gets a moment to say what it saw.
                failed = True
                deadline = min(deadline, time.monotonic() + _MOMENT)
            _serve_requests(shared / "requests", machines, killed)
            time.sleep(0.05)
        still_on = {name for name, machine in machines.items() if machine.is_on()}
        too_late = time.monotonic() > deadline
    finally:
        for machine in machines.values():
            machine.pull_plug()
    return {name: _outcome(shared, machine, name in killed, name in still_on, too_late, failed,
                           scenario)
            for name, machine in machines.items()}


def _died(shared, machines, killed):
    """The hosts that went off without having ended their script: nobody need wait for the rest."""
    return [name for name, machine in machines.items()
            if not machine.is_on() and name not in killed
            and not (shared / "results" / name / "exit").exists()]


def _failed(shared, machines):
    codes = [shared / "results" / name / "exit" for name in machines]
    return any(code.exists() and code.read_text().strip() != "0" for code in codes)


def _outcome(shared, machine, killed, still_on, too_late, failed, scenario):
    code_file = shared / "results" / machine.name / "exit"
    if code_file.exists():
        code = int(code_file.read_text())
        return code, f"script ended with {code}"
    if killed:
        return 0, "power cut, as the scenario asked"
    if still_on and (failed or not too_late):
        return _STOPPED, "stopped, because the other host failed"
    if still_on:
        return 124, f"did not end within {scenario.timeout} s (the scenario's timeout)"
    errors = machine.emulator_errors()
    return _DIED, "died before its script ended" + (f": {errors}" if errors else "")


def _serve_requests(directory, machines, killed):
    """What the scripts ask of the world outside: guest/lab.sh, lab_world."""
    for path in directory.iterdir():
        if path.name.endswith(".done"):
            continue
        verb, _, name = path.name.partition(".")
        if name not in machines:
            raise LabError(f"the scenario asked to {verb} the unknown host {name!r}")
        if verb == "cut-link":
            machines[name].set_link(False)
        elif verb == "mend-link":
            machines[name].set_link(True)
        elif verb == "cut-power":
            killed.add(name)
            machines[name].pull_plug()
        else:
            raise LabError(f"the scenario asked for the unknown {verb!r}")
        path.rename(path.with_name(path.name + ".done"))


def _bring_back(shared, results):
    results.parent.mkdir(parents=True, exist_ok=True)
    if results.exists():
        results.rmdir()
    shutil.copytree(shared / "results", results)
    for path in shared.glob("console.*"):
        shutil.copy(path, results)
    for path in shared.glob("qemu.*"):
        if path.stat().st_size:
            shutil.copy(path, results)


def _show_end(results, name, lines=25):
    for path in (results / name / "log", results / f"console.{name}"):
        if path.exists():
            print(f"--- end of {path}")
            print("\n".join(path.read_text(errors="replace").splitlines()[-lines:]), flush=True)


def default_results(scenario_name):
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return pathlib.Path(os.getcwd()) / "lab-results" / f"{scenario_name}-{stamp}-{os.getpid()}"

