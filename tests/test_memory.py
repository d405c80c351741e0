"""What a training process does with memory that a step has freed."""

import subprocess
import sys

STEP = """
import resource, torch
from imagenette.processes import keep_freed_memory

{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(2**20) for _ in range(50)]  # of 4 MB, freed together as a step's activations are
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def faults(first: str) -> int:
    """Pages that the kernel hands out for fifty blocks of 4 MB, which were freed just before."""
    script = STEP.format(first=first)
    return int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)


def test_freed_memory_is_used_again_without_asking_the_kernel():
    assert faults("keep_freed_memory()") < 100
    assert faults("") > 1000
