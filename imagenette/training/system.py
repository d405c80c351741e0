"""The machine: what it is, and how busy it was over an epoch (one reading an epoch, by rank 0)."""

from __future__ import annotations

import platform
from pathlib import Path

import psutil
import torch

from imagenette.network.uncompiled import torchvision


class SystemReader:
    """Call it at each epoch's end: `{"cpu_utilization_percentage": 93.1, ...}` since the call before, with
    MLflow's names for them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        psutil.cpu_percent()  # starts the interval

    def __call__(self) -> dict[str, float]:
        memory = psutil.virtual_memory()
        readings = {
            "cpu_utilization_percentage": psutil.cpu_percent(),
            "system_memory_usage_percentage": memory.percent,
            "process_memory_usage_megabytes": self._process.memory_info().rss / 1e6,
        }
        if self._device.type == "cuda":
            readings["gpu_0_memory_usage_megabytes"] = torch.cuda.max_memory_allocated(self._device) / 1e6
            torch.cuda.reset_peak_memory_stats(self._device)  # the next epoch has a peak of its own
        return readings


def machine(device: torch.device, processes: int) -> dict[str, str]:
    """Device, threads and versions, as tags of a run."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "threads": str(torch.get_num_threads()),
        "processes": str(processes),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
    }


def cpu_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
