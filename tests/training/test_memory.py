"""What a training process does with memory that a step has freed."""

import subprocess
import sys

import pytest

STEP = """
import psutil, torch
from imagenette.processes import keep_freed_memory

{first}
before = psutil.Process().memory_info().rss
blocks = [torch.ones(2**20) for _ in range(50)]  # of 4 MB
del blocks
print((psutil.Process().memory_info().rss - before) / 2**20)
"""


@pytest.mark.parametrize(("first", "kept"), [("keep_freed_memory()", 200), ("", 0)])
def test_freed_memory_stays_with_a_process_that_asks_for_it(first, kept):
    script = STEP.format(first=first)
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert float(said) == pytest.approx(kept, abs=20)
