import os

# before torch, matplotlib and hypothesis are imported: small tensors on one thread are fastest, figures need no screen
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings  # noqa: E402

# the same examples on every machine: a test that fails by chance helps nobody
settings.register_profile("molml", deadline=None, derandomize=True, database=None)
settings.load_profile("molml")
