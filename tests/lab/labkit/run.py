"""Runs of scenarios: machines on, scripts run one scenario after the other, results back, machines off."""

import dataclasses
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
import tomllib

from . import LabError, images, packages, payload
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
    nics: int = 1  # cables between the hosts: 10.9.0.0/24, 10.9.1.0/24 and so on
    timeout: int = 300  # of this scenario, booting included
    xen: bool = False  # the machines run Xen, the scripts its dom0; `memory` is of both together
    ends_host: bool = False  # nothing can run on the same machines afterwards (a power cut)
    packages: list = dataclasses.field(default_factory=list)  # Debian packages besides the usual
    programs: list = dataclasses.field(default_factory=list)  # of this build, below --build-dir
    linux_guest: bool = False  # /host/linux/vmlinuz and initrd.img: tests/guests/linux
    files: list = dataclasses.field(default_factory=list)  # of the source tree, to /host/files
    kernel_arguments: str = ""
    # host -> NUMA nodes; memory, CPUs and network devices are shared out over them. Not named: one. Or, for hosts that
    # are not so even, a table: nodes = [{memory = MiB, cpus = N}, ...], nics = [the node of each], distances (rows),
    # smp (what QEMU's -smp is told besides how many).
    numa: dict = dataclasses.field(default_factory=dict)

    def root_image(self):
        return images.root_image([*self.packages, *(packages.XEN_PACKAGES if self.xen else ())])


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


def _together(scenario):
    """What two scenarios must have in common to run on the same machines."""
    return (scenario.kernel, scenario.hosts, scenario.cpus, scenario.mtu, scenario.rdma, scenario.nics,
            scenario.xen, scenario.kernel_arguments, json.dumps(scenario.numa, sort_keys=True),
            tuple(sorted(scenario.packages)))


def groups(scenarios_to_run):
    """Lists of scenarios; those of one list can run one after the other on the same machines."""
    by_machine = {}
    for scenario in scenarios_to_run:
        by_machine.setdefault(_together(scenario), []).append(scenario)
    found = []
    for members in by_machine.values():
        last = [scenario for scenario in members if scenario.ends_host]
        members = [scenario for scenario in members if not scenario.ends_host] + last[:1]
        found += [members, *([scenario] for scenario in last[1:])]
    return found


def _megabytes(memory):
    return int(memory.removesuffix("M"))


@dataclasses.dataclass
class Outcome:
    passed: bool
    story: str  # what to tell a person, the ends of the logs when it failed


def run(scenarios_to_run, build_directory, results, accelerator="tcg", tell=print):
    """Runs them all, sharing machines where they can; name -> Outcome. What came back is in
    results/NAME afterwards; `results` must not exist or be empty."""
    results = pathlib.Path(results).resolve()
    if results.exists() and any(results.iterdir()):
        raise LabError(f"{results} is not empty: name a new directory for the results")
    outcomes = {}
    for group in groups(scenarios_to_run):
        panicked_before = None
        while group:
            began = time.monotonic()
            done, panicked, release = _boot(group, build_directory, results, accelerator)
            for name, told in done.items():
                outcome = _judge(name, told, results)
                if not outcome.passed and panicked and panicked_before != name:
                    # The emulator itself gets an instruction wrong now and then; a bug of ours does
                    # not panic the kernel, so once more is fair. Said aloud, because a kernel bug
                    # would look the same.
                    tell(f"lab: {name}: the kernel of {', '.join(panicked)} panicked under emulation; "
                         "once more")
                    shutil.move(results / name, results / f"{name}.panic")
                    panicked_before = name
                    continue
                outcomes[name] = outcome
                tell(outcome.story)
            group = [scenario for scenario in group if scenario.name not in outcomes]
            tell(f"lab: {len(done)} scenario(s) in {time.monotonic() - began:.0f} s, booting included, "
                 f"Linux {release}, results in {results}")
    return outcomes


def _judge(name, told, results):
    passed = all(code == 0 for code, _ in told.values())
    story = [f"lab: {name} {host}: {said}" for host, (_, said) in told.items()]
    for host, (code, _) in told.items():
        if code != 0:
            story += _log_ends(results / name, host)
    story.append(f"lab: {name}: {'PASS' if passed else 'FAIL'}")
    return Outcome(passed, "\n".join(story))


def _boot(group, build_directory, results, accelerator):
    """One life of the machines: scenario -> host -> (exit code, what happened in words), as far as they
    came, the first failure last; the hosts whose kernel panicked; the kernel's release."""
    root = group[0].root_image()
    kernel = images.kernel(group[0].kernel, root)
    machine_like = dataclasses.replace(
        group[0], memory=f"{max(_megabytes(scenario.memory) for scenario in group)}M")
    shared = pathlib.Path(tempfile.mkdtemp(prefix="ramferry-lab-"))
    try:
        _prepare(shared, group, root, build_directory)
        done = _drive(shared, group, machine_like, root, kernel, accelerator)
        for name in done:
            _bring_back(shared, name, results / name)
        last = results / list(done)[-1]
        panicked = [host for host, (code, _) in done[last.name].items() if code == _DIED
                    and "Kernel panic" in (last / f"console.{host}").read_text(errors="replace")]
    finally:
        shutil.rmtree(shared, ignore_errors=True)
    return done, panicked, kernel.release


def _prepare(shared, group, root, build_directory):
    shutil.copytree(LAB / "guest", shared / "guest")
    for scenario in group:
        place = shared / scenario.name
        shutil.copytree(scenario.directory, place / "scenario")
        for name in ("flags", "requests", "results", "files"):
            (place / name).mkdir()
        for name in _NAMES[:scenario.hosts]:
            (place / "results" / name).mkdir()
        for path in scenario.files:
            source = LAB.parent.parent / path
            if source.is_dir():
                shutil.copytree(source, place / "files" / source.name)
            else:
                shutil.copy(source, place / "files")
    if any(scenario.linux_guest for scenario in group):
        (shared / "linux").mkdir()
        guest = _linux_guest()
        shutil.copy(guest.kernel, shared / "linux/vmlinuz")
        shutil.copy(guest.initrd, shared / "linux/initrd.img")
    programs = sorted({path for scenario in group for path in scenario.programs})
    payload.stage([build_directory / path for path in programs], root / "tree", shared)
    with open(shared / "san.img", "wb") as disk:
        disk.truncate(16 << 20)
    (shared / "plan").write_text("".join(f"{scenario.name}\n" for scenario in group))


def _linux_guest():
    sys.path.append(str(LAB.parent.parent))
    from tests.guests.linux import build
    try:
        return build.build()
    except build.CannotBuild as error:
        raise LabError(f"the Linux guest cannot be made: {error}") from None


def _drive(shared, group, machine_like, root, kernel, accelerator):
    """scenario -> host -> (exit code, what happened in words), as far as it came."""
    names = _NAMES[:machine_like.hosts]
    machines = {name: Machine(name, index, machine_like, root, kernel, shared, accelerator)
                for index, name in enumerate(names, 1)}
    done = {}
    try:
        for machine in machines.values():
            machine.power_on()
        for scenario in group:
            done[scenario.name] = _follow(shared / scenario.name, scenario, machines)
            if any(code != 0 for code, _ in done[scenario.name].values()):
                break
    finally:
        for machine in machines.values():
            machine.pull_plug()
    return done


def _follow(place, scenario, machines):
    """Waits for the end of one scenario."""
    began = time.monotonic()
    deadline = began + scenario.timeout
    killed = set()
    failed = False
    while True:
        codes = {name: _code(place, name) for name in machines}
        if all(code is not None or name in killed for name, code in codes.items()):
            break
        if time.monotonic() > deadline or any(
                codes[name] is None and name not in killed and not machine.is_on()
                and _code(place, name) is None for name, machine in machines.items()):
            break
        if not failed and any(codes.values()):
            # The other host most likely waits for this one: it gets a moment to say what it saw.
            failed = True
            deadline = min(deadline, time.monotonic() + _MOMENT)
        _serve_requests(place / "requests", machines, killed)
        time.sleep(0.05)
    too_late = time.monotonic() > deadline
    took = time.monotonic() - began
    return {name: _outcome(place, machine, name in killed, too_late, failed, scenario, took)
            for name, machine in machines.items()}


def _code(place, name):
    path = place / "results" / name / "exit"
    return int(path.read_text()) if path.exists() else None


def _outcome(place, machine, killed, too_late, failed, scenario, took):
    code = _code(place, machine.name)
    if code is not None:
        return code, f"script ended with {code}, {took:.0f} s"
    if killed:
        return 0, "power cut, as the scenario asked"
    if machine.is_on() and (failed or not too_late):
        return _STOPPED, "stopped, because the other host failed"
    if machine.is_on():
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


def _bring_back(shared, name, results):
    """The console of each machine so far, and what its scripts left."""
    results.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(shared / name / "results", results)
    for path in (*shared.glob("console.*"), *shared.glob("qemu.*")):
        if path.stat().st_size:
            shutil.copy(path, results)


def _log_ends(results, name, lines=25):
    story = []
    for path in (results / name / "log", results / f"console.{name}"):
        if path.exists():
            story += [f"--- end of {path}", *path.read_text(errors="replace").splitlines()[-lines:]]
    return story


def default_results():
    return pathlib.Path(os.getcwd()) / "lab-results" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
