"""Guest memory, seen from outside through the files that back it."""
import mmap
import os


class GuestMemory:
    """Reads and writes guest RAM below the first hole (2 GiB on q35), over all backend files in order."""

    def __init__(self, paths):
        self._maps = []
        for path in paths:
            fd = os.open(path, os.O_RDWR)
            try:
                self._maps.append(mmap.mmap(fd, os.fstat(fd).st_size))
            finally:
                os.close(fd)

    @property
    def size(self):
        return sum(len(part) for part in self._maps)

    def read(self, address, length):
        """Bytes at a guest-physical address; must not reach over the end of a backend."""
        part, offset = self._find(address, length)
        return part[offset:offset + length]

    def write(self, address, data):
        part, offset = self._find(address, len(data))
        part[offset:offset + len(data)] = data

    def close(self):
        for part in self._maps:
            part.close()
        self._maps = []

    def _find(self, address, length):
        for part in self._maps:
            if address < len(part):
                if address + length > len(part):
                    break
                return part, address
            address -= len(part)
        raise ValueError("no guest memory there, or it lies in two backends")


def touched_bytes(paths):
    """Memory that the backend files really use."""
    return sum(os.stat(path).st_blocks * 512 for path in paths)
