"""MMAction2 is imported beside packages that it was not published for."""

import os
import subprocess
import sys
from pathlib import Path

IMPORT = """
import ada3d_fx.mm, mmaction.models
from mmaction.utils import dependency
print(dependency.WITH_MULTIMODAL)
"""


def test_a_transformers_without_what_mmaction2_asks_for(tmp_path):
    """Its multimodal models are left out; all others were lost with them before."""
    package = tmp_path / "transformers"
    (package / "models" / "beit").mkdir(parents=True)
    for folder in (package, package / "models", package / "models" / "beit"):
        (folder / "__init__.py").write_text("")
    (package / "modeling_utils.py").write_text("class PreTrainedModel:\n    pass\n")
    described = tmp_path / "transformers-5.17.0.dist-info"
    described.mkdir()
    described.joinpath("METADATA").write_text("Name: transformers\nVersion: 5.17.0\n")
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(tmp_path), str(root)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
