"""What a run gives to its machines: programs of this build with the libraries they need."""

import pathlib
import re
import shutil
import subprocess

from . import LabError

_LIBRARY_DIRECTORIES = ("usr/lib/x86_64-linux-gnu", "usr/lib")


def _libraries(program):
    """name -> path of each shared library the dynamic linker would load for `program` here."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True)
    missing = re.findall(r"^\s*(\S+) => not found", done.stdout, re.MULTILINE)
    if missing:
        raise LabError(f"{program} misses libraries on this host: {', '.join(missing)}")
    return dict(re.findall(r"^\s*(\S+) => (/\S+)", done.stdout, re.MULTILINE))


def stage(programs, root_tree, directory):
    """Copies programs to directory/bin, stripped (the 9p file system is slow under emulation), and
    to directory/lib the libraries that the lab's root does not have. The root's own come first:
    libc and libibverbs must fit what is installed beside them there."""
    binaries, libraries = directory / "bin", directory / "lib"
    binaries.mkdir(parents=True)
    libraries.mkdir()
    for program in map(pathlib.Path, programs):
        if not program.exists():
            raise LabError(f"{program} is not there: build it first, or give --build-dir")
        _copy_stripped(program, binaries / program.name)
        with open(program, "rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        for name, path in _libraries(program).items():
            if any((root_tree / place / name).exists() for place in _LIBRARY_DIRECTORIES):
                continue
            if not (libraries / name).exists():
                _copy_stripped(path, libraries / name)


def _copy_stripped(source, target):
    shutil.copy(source, target)
    strip = shutil.which("strip")
    if strip:  # leaves scripts alone, with an error that does not matter
        subprocess.run([strip, str(target)], capture_output=True)
