"""The fixtures of the other end-to-end tests."""
from tests.qemu.conftest import certificates, site  # noqa: F401
