"""What the machine did over an epoch, named as MLflow's system metrics. One reading an epoch, by rank 0."""

from __future__ import annotations

import psutil
import torch


class SystemReader:
    """Call it at each epoch's end: `{"cpu_utilization_percentage": 93.1, ...}` since the call before."""

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
        return readings
