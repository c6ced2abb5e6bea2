"""Resets a process's TCP connections, as a firewall or a rebooted router would, on any kernel since Linux 5.6."""
import contextlib
import ctypes
import errno
import os
import socket
from pathlib import Path

_PIDFD_GETFD = 438  # pidfd_getfd(2), x86-64
_ESTABLISHED = 1    # linux/tcp.h, the first byte of TCP_INFO

_libc = ctypes.CDLL(None, use_errno=True)


def _sockets(pid):
    """Copies of its sockets: the very same sockets, as after dup(2). Those that it closes meanwhile are left out."""
    found = []
    pidfd = os.pidfd_open(pid)
    try:
        with contextlib.suppress(FileNotFoundError, PermissionError):  # it has just ended
            for link in Path(f"/proc/{pid}/fd").iterdir():
                fd = _libc.syscall(_PIDFD_GETFD, pidfd, int(link.name), 0)
                if fd < 0:
                    continue
                if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                    found.append(socket.socket(fileno=fd))
                else:
                    os.close(fd)
    finally:
        os.close(pidfd)
    return found


def _disconnect(connection):
    """connect(2) with AF_UNSPEC: the kernel sends the peer a reset, and this end is no longer connected."""
    address = ctypes.create_string_buffer(16)  # struct sockaddr of family 0
    if _libc.connect(connection.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        if number != errno.ENOTCONN:
            raise OSError(number, os.strerror(number))


def reset(pid):
    """Resets every established TCP connection of that process; returns how many there were."""
    count = 0
    for connection in _sockets(pid):
        with connection:
            if connection.type != socket.SOCK_STREAM or connection.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
                _disconnect(connection)
                count += 1
    return count
