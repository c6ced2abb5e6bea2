"""What can go wrong, each a function of an Attempt (world.py)."""
import signal

from tests.fault import connections
from tests.harness.qemu import ForeignProcess


def kill_source(attempt):
    """SIGKILL to `ramferry migrate`."""
    attempt.source.kill()
    attempt.source.wait()


def kill_destination(attempt):
    """SIGKILL to `ramferry receive`; its QEMU lives on."""
    attempt.destination.kill()
    attempt.destination.wait()


def kill_source_qemu(attempt):
    attempt.source_qemu_killed = True
    attempt.guest.process.send_signal(signal.SIGKILL)
    attempt.guest.process.wait()


def kill_destination_qemu(attempt):
    for pid in attempt.target.processes():
        attempt.destination_qemu_killed = True
        process = ForeignProcess(pid)
        process.kill()
        process.wait()


def drop_packets(attempt):
    attempt.world.drop()


def reset_connections(attempt):
    """Every connection that the source has to the destination, at this moment."""
    attempt.resets = connections.reset(attempt.source.pid) if attempt.source.poll() is None else 0


def interrupt_source(attempt):
    """Ctrl-C."""
    attempt.source.send_signal(signal.SIGINT)


def terminate_destination(attempt):
    """As systemd stops `ramferry receive`, alone or with its host; QEMUs live on."""
    attempt.destination_ends = True
    attempt.destination.send_signal(signal.SIGTERM)


def kill_both_ramferries(attempt):
    kill_source(attempt)
    kill_destination(attempt)


def lose_source_host(attempt):
    """All of it, and it comes up again."""
    kill_source(attempt)
    kill_source_qemu(attempt)
    attempt.home.reboot()


def lose_destination_host(attempt):
    kill_destination(attempt)
    kill_destination_qemu(attempt)
    attempt.away.reboot()


# One at a time; what becomes of the guest is known for each.
FAULTS = [kill_source, kill_destination, kill_source_qemu, kill_destination_qemu, drop_packets, reset_connections,
          interrupt_source, terminate_destination]
