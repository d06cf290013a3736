"""Data sets: the ones that come with molml, and a register of well-known public ones.

Nothing is downloaded unless `download` (or ``molml data download``) is called.
"""

from molml.datasets.catalogue import card, list_datasets
from molml.datasets.files import DownloadError, add, download, make, path

__all__ = ["DownloadError", "add", "card", "download", "list_datasets", "make", "path"]
