"""One emulated host: a QEMU process that cannot outlive the lab, and its QMP socket."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess

from . import LabError, images

_PR_SET_PDEATHSIG = 1

# cx16: QEMU 7.2's CMPXCHG16B can leave garbage in the flags, which an interrupt then saves: a double
# fault in the kernel's allocator. erms, fsrm: the emulator copies byte by byte for these, by eights
# without. pclmulqdq: emulated, it is slower than the tables that compute CRCs otherwise.
_EMULATED_CPU = "max,la57=off,cx16=off,erms=off,fsrm=off,pclmulqdq=off"

# The worldwide name of the disk that both hosts reach.
_SAN_NAME = "0x5000c500a1b2c3d4"

# What Xen and its guests survive of the emulated CPU. smap: dom0 dies early otherwise. rdtscp: PVH guests crash.
_XEN_CPU = "max,smap=off,la57=off,pku=off,rdtscp=off,erms=off,fsrm=off"
# eager-fpu: otherwise FPU and SSE registers of dom0 are silently corrupted once a guest runs.
_XEN_ARGUMENTS = "console=com1 com1=115200,8n1 dom0_mem=560M,max:560M dom0_max_vcpus=1 spec-ctrl=eager-fpu"


def _shape(name, scenario):
    """The NUMA shape of a host: as scenario.toml has it, or so many nodes that are all alike; {} without any."""
    shape = scenario.numa.get(name, 1)
    if isinstance(shape, dict):
        return shape
    if shape == 1:
        return {}
    memory = int(scenario.memory.removesuffix("M")) // shape
    return {"nodes": [{"memory": memory, "cpus": scenario.cpus // shape}] * shape,
            "nics": [nic * shape // scenario.nics for nic in range(scenario.nics)]}


def _numa(shape):
    """Memory, CPUs and distances of the nodes, and a PCI bus for each, `nodeN`."""
    arguments, cpu = [], 0
    for node, part in enumerate(shape["nodes"]):
        cpus = f",cpus={cpu}-{cpu + part['cpus'] - 1}" if part.get("cpus") else ""
        cpu += part.get("cpus", 0)
        arguments += [
            "-object", f"memory-backend-ram,id=memory{node},size={part['memory']}M",
            "-numa", f"node,nodeid={node}{cpus},memdev=memory{node}",
        ]
        if "nics" not in shape or node in shape["nics"]:
            arguments += ["-device", f"pxb,id=node{node},bus=pci.0,bus_nr={16 + 16 * node},numa_node={node}"]
    for source, row in enumerate(shape.get("distances", ())):
        for target, distance in enumerate(row):
            arguments += ["-numa", f"dist,src={source},dst={target},val={distance}"]
    return arguments


def _die_with_parent():
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _boot(xen, kernel, append):
    if not xen:
        return "-kernel", str(kernel.vmlinuz), "-initrd", str(kernel.initramfs), "-append", append
    # Multiboot: the modules are separated by commas, each with its own command line.
    return ("-kernel", str(images.hypervisor()), "-append", _XEN_ARGUMENTS,
            "-initrd", f"{kernel.vmlinuz} {append},{kernel.initramfs}")


class Machine:
    """`index` counts from 1; machines 1 and 2 are the ends of one cable."""

    def __init__(self, name, index, scenario, root, kernel, shared, accelerator):
        self.name = name
        self.console = shared / f"console.{name}"
        self._qmp_path = shared / f"qmp.{name}"
        program = shutil.which("qemu-system-x86_64")
        if not program:
            raise LabError("qemu-system-x86_64 is not installed: apt-get install qemu-system-x86")
        append = (f"console={'hvc0' if scenario.xen else 'ttyS0'} quiet panic=-1 lab.host={name} lab.index={index} "
                  f"lab.mtu={scenario.mtu} lab.rdma={int(scenario.rdma)} lab.hosts={scenario.hosts} {scenario.kernel_arguments}")
        accelerate = {"tcg": ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", _XEN_CPU if scenario.xen else _EMULATED_CPU],
                      "kvm": ["-accel", "kvm", "-cpu", "host"]}[accelerator]
        shape = _shape(name, scenario)
        nodes = shape.get("nodes", ())
        memory = f"{sum(node['memory'] for node in nodes)}M" if nodes else scenario.memory
        smp = str(sum(node.get("cpus", 0) for node in nodes) or scenario.cpus)
        if "smp" in shape:
            smp += "," + shape["smp"]
        self._command = [
            program, *accelerate, "-name", f"ramferry-lab-{name}", "-m", memory,
            "-smp", smp, "-nodefaults", "-no-reboot", "-display", "none",
            "-serial", f"file:{self.console}",
            "-qmp", f"unix:{self._qmp_path},server=on,wait=off",
            *_boot(scenario.xen, kernel, append),
            # On the root bus in so many words: QEMU would try the buses of NUMA nodes first.
            "-drive", f"file={root}/root.ext4,format=raw,if=none,id=root,snapshot=on",
            "-device", "virtio-blk-pci,drive=root,bus=pci.0",
            "-drive", f"file={kernel.modules},format=raw,if=none,id=modules,readonly=on",
            "-device", "virtio-blk-pci,drive=modules,bus=pci.0",
            "-fsdev", f"local,id=host,path={shared},security_model=none,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host,bus=pci.0",
            "-device", "virtio-rng-pci,bus=pci.0",
            "-drive", f"file={shared}/san.img,format=raw,if=none,id=san,file.locking=off",
            "-device", "virtio-scsi-pci,id=scsi,bus=pci.0",
            "-device", f"scsi-hd,drive=san,bus=scsi.0,share-rw=on,wwn={_SAN_NAME}",
        ]
        if nodes:
            self._command += _numa(shape)
        for nic in range(scenario.nics):
            bus = f",bus=node{shape['nics'][nic]}" if nodes else ""
            if scenario.hosts == 2:
                # Datagrams, not a stream: what is sent to a host without power is lost, as on a switch,
                # and does not pile up in the sender.
                mine, others = f"{shared}/cable{nic}.{index}", f"{shared}/cable{nic}.{3 - index}"
                netdev = (f"dgram,id=net{nic},local.type=unix,local.path={mine},"
                          f"remote.type=unix,remote.path={others}")
            else:
                netdev = f"hubport,id=net{nic},hubid={nic}"
            self._command += [
                "-netdev", netdev,
                "-device", f"virtio-net-pci,netdev=net{nic},romfile=,mac=52:54:00:00:0{nic}:0{index}{bus}",
            ]
        self._nics = scenario.nics
        self._log = shared / f"qemu.{name}"
        self._process = None

    def power_on(self):
        with open(self._log, "w") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=_die_with_parent)

    def is_on(self):
        return self._process is not None and self._process.poll() is None

    def pull_plug(self):
        """Off, at once, as in a power failure. Idempotent."""
        if self.is_on():
            self._process.kill()
        if self._process is not None:
            self._process.wait()

    def emulator_errors(self):
        return self._log.read_text().strip() if self._log.exists() else ""

    def set_link(self, up):
        """All its cables."""
        for nic in range(self._nics):
            self._qmp("set_link", name=f"net{nic}", up=up)

    def _qmp(self, command, **arguments):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            directory, name = os.path.split(self._qmp_path)
            descriptor = os.open(directory, os.O_PATH)  # socket paths are limited to 108 bytes
            try:
                connection.connect(f"/proc/self/fd/{descriptor}/{name}")
            finally:
                os.close(descriptor)
            stream = connection.makefile("rw")
            stream.readline()  # greeting
            for request in ({"execute": "qmp_capabilities"},
                            {"execute": command, "arguments": arguments}):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                reply = json.loads(stream.readline())
                if "error" in reply:
                    raise LabError(f"{command} on {self.name}: {reply['error']['desc']}")
