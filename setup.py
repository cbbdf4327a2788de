"""Packaging of ada3d_fx: extras `export`, `int8`, `ray` (clusters), `dev` (tests, lint, types)."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
README = ROOT / "README.md"

# The lower bounds are those with which tools/test_oldest.sh runs the tests.
CORE = [
    "torch>=2.4",
    "torchvision>=0.19",
    "fvcore>=0.1.5.post20221221",
    "numpy>=1.24",
    "matplotlib>=3.7",
    "pillow>=9.1",  # 9.0 draws animations in the colours of the web only
]
FRAMEWORK = [
    "mmengine>=0.10.5,<0.11",
    # mmaction2 1.2 wants mmcv < 2.2. mmcv itself has no wheel; mmcv-lite is the same package without
    # compiled operators, which recognizers do not need. An environment that has the full mmcv may
    # keep it: install with `--no-deps` there.
    "mmcv-lite==2.1.0",
    "mmaction2==1.2.0",
    "decord>=0.6",
    # Writes the generated clips. Its wheels bring their own H.264 encoder; 11 has none for Python 3.10,
    # and its source needs FFmpeg's headers.
    "av>=12",
    "tensorboard>=2.12",
    "rich>=12.3",  # progress bars; MMEngine brings it too, and imports columns that 12.2 lacks
    # mmaction2 imports it without declaring it; before 4.3, Python 3.10's own entry_points() fails beside it
    "importlib_metadata>=4.3",
    # mmengine looks packages up through pkg_resources (`_base_ = 'mmaction::...'`), which later
    # releases of setuptools no longer have. 77 is the first that reads the license's name (PEP 639);
    # 77.0.0 was withdrawn.
    "setuptools>=77.0.3,<81",
]
# One engine is enough to run an exported network; `onnx` writes them.
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "openvino>=2024.4"]
INT8 = [*EXPORT, "nncf>=2.14"]  # quantises what is exported
DEV = [
    *EXPORT,
    *("pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100"),
    *("ruff>=0.8", "mypy>=1.11", "pre-commit>=3.5"),
]
RAY = ["ray[data]>=2.9"]  # docs/ray_inference.py
# Folder of the checkout, what of it is packaged, and where in the package: as in MMAction2's wheel,
# whose configs and tools are in mmaction/.mim/. The shell scripts set a checkout up and stay there.
MIM = (
    ("mmaction_configs", "**/*.py", "ada3d_fx/.mim/configs"),
    ("tools", "*.py", "ada3d_fx/.mim/tools"),
)


class BuildWithMim(build_py):
    """Copies configs and tools into the built package; nothing is left in the checkout.

    An editable install has them where they are, in the checkout.
    """

    def run(self):
        """Build the package, then add what `MIM` names."""
        super().run()
        if not self.editable_mode:
            for source, target in self._mim_files():
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode=1):
        """List what was built, with the added files."""
        added = [] if self.editable_mode else [str(target) for _, target in self._mim_files()]
        return [*super().get_outputs(include_bytecode), *added]

    def _mim_files(self):
        for folder, pattern, inside in MIM:
            for source in sorted((ROOT / folder).glob(pattern)):
                target = Path(self.build_lib, inside, source.relative_to(ROOT / folder))
                yield source.relative_to(ROOT), target


setup(
    name="ada3d_fx",
    version="0.1.0",
    description="Per-clip frame and 3D-convolution selection (Ada3D) for MMAction2 recognizers",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["ada3d_fx", "ada3d_fx.*"]),
    python_requires=">=3.10",
    install_requires=CORE + FRAMEWORK,
    extras_require={"dev": DEV, "export": EXPORT, "int8": INT8, "ray": RAY},
    cmdclass={"build_py": BuildWithMim},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
