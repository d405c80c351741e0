"""The threads that make pictures take no cores from the step."""

import os
import subprocess
import sys

SCRIPT = """
import threading

import numpy as np
import psutil
import torch

from imagenette.data.dataset import Split
from imagenette.data.pictures import ThreadedPictures

side = 224
images = np.zeros((4, side, side, 3), dtype=np.uint8)
split = Split(images, np.zeros(4, dtype=np.int64), np.full((4, 2), side), tuple("abcd"))
torch.ones(1 << 20).add_(1)  # this thread's team
before = psutil.Process().num_threads()
boxes = np.array([[0, 0, side, side], [1, 3, 220, 190], [100, 90, 120, 130], [0, 0, side, 40]])
pictures = ThreadedPictures(split, threads=2)
start = pictures.rows(np.arange(4), boxes, np.array([False, True] * 2))
for size in (64, 128, 192, side):
    start(slice(4), size)()
print(psutil.Process().num_threads() - before, threading.active_count() - 1)
"""


def test_making_pictures_starts_no_openmp_teams():
    """GNU's OpenMP lets every team wait asleep, instead of spinning, as soon as all teams together are more
    threads than cores: a tenth of a training step."""
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"OMP_NUM_THREADS": "2"},
        capture_output=True,
        check=True,
        text=True,
    )
    more, ours = map(int, ran.stdout.split())
    assert more == ours > 0
