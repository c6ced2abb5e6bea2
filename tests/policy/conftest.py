"""The fixtures of tests/qemu."""
from tests.qemu.conftest import certificates, site  # noqa: F401
