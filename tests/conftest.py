import os
import signal

import pytest

# before torch, matplotlib and hypothesis are imported: small tensors on one thread are fastest, figures need no screen
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# jobs in the background begin with Ctrl-C ignored, which tests of it cannot do with
signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import settings  # noqa: E402

# the same examples on every machine: a test that fails by chance helps nobody
settings.register_profile("molml", deadline=None, derandomize=True, database=None)
settings.load_profile("molml")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Examples first, for they take longest; in several processes each by itself, other tests by files."""
    items.sort(key=lambda item: item.path.name != "test_examples.py")
    for item in items:
        group = item.nodeid if item.path.name == "test_examples.py" else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
