"""Data sets: where they come from, checked and decoded once, as arrays in memory maps."""

from imagenette.data.dataset import Dataset, Split
from imagenette.data.sources import open_dataset

__all__ = ["Dataset", "Split", "open_dataset"]
