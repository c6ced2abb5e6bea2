"""Memory of a Xen domain, read from dom0: as mailbox.MemoryFile, for guests that have no file."""
import ctypes
import mmap
import subprocess

_PAGE = mmap.PAGESIZE


class XenMemory:
    """Of the domain called `name` on this host now."""

    def __init__(self, name):
        self._name = name
        self._library = ctypes.CDLL("libxenforeignmemory.so.1", use_errno=True)
        self._library.xenforeignmemory_open.restype = ctypes.c_void_p
        self._library.xenforeignmemory_map.restype = ctypes.c_void_p
        self._library.xenforeignmemory_map.argtypes = [
            ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
        self._library.xenforeignmemory_unmap.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self._handle = self._library.xenforeignmemory_open(None, 0)
        if not self._handle:
            raise OSError("cannot map memory of Xen domains")
        found = subprocess.run(["xl", "domid", name], capture_output=True, text=True)
        if found.returncode != 0:
            raise FileNotFoundError(name)
        self._id = int(found.stdout)

    def read(self, address, length):
        first, last = address // _PAGE, (address + length - 1) // _PAGE
        count = last - first + 1
        frames = (ctypes.c_ulong * count)(*range(first, last + 1))
        errors = (ctypes.c_int * count)()
        place = self._library.xenforeignmemory_map(self._handle, self._id, mmap.PROT_READ, count, frames, errors)
        if not place or any(errors):
            raise FileNotFoundError(f"frame {first:#x} of domain {self._name}")
        try:
            return ctypes.string_at(place + address % _PAGE, length)
        finally:
            self._library.xenforeignmemory_unmap(self._handle, place, count)
