"""How much memory this process holds: the measure for models that do not say their own size."""

from __future__ import annotations

import os
import resource
import sys

__all__ = ["resident_bytes"]


def resident_bytes() -> int:
    """Resident memory now, in bytes; where the system does not tell, the largest that it ever was."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
