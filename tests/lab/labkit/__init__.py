"""The lab: emulated hosts with real kernels and soft-RoCE. See ../README.md."""


class LabError(Exception):
    """Something the person who runs the lab can act on; shown without a traceback."""
