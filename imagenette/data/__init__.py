"""Data sets, from a source to batches.

    a name, folder or archive -> members -> scan -> decoded once into the cache -> Dataset
    Dataset, (seed, epoch) -> plan -> pictures, augmentations -> batches

Owns the sources, the cache and every random draw of an epoch. Never imports mlflow, optuna or tracking.
"""

from imagenette.data.dataset import Dataset, Split
from imagenette.data.sources import open_dataset

__all__ = ["Dataset", "Split", "open_dataset"]
