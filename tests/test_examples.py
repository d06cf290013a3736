"""Every example runs, as a user would run it, in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("**/*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_example(path, tmp_path):
    # MOLML_FAST asks an example for seconds instead of minutes; its result is then worth nothing
    environment = os.environ | {"MOLML_FAST": "1"}
    line = [sys.executable, "-W", "error", str(path)]
    child = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
