"""What a benchmark ran on, without anything that says whose machine it is."""

from __future__ import annotations

import platform
from importlib.metadata import version

import psutil
import torch


def machine() -> dict[str, object]:
    """Processor, memory and threads."""
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": psutil.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkl": "Intel(R) oneAPI Math Kernel" in torch.__config__.show(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def versions(*packages: str) -> dict[str, str]:
    """Python's version and those of packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
