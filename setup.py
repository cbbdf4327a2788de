"""Packaging of ada3d_fx: `pip install .`, extras `dev` (tests, lint) and `export` (ONNX, OpenVINO)."""

from pathlib import Path

from setuptools import find_packages, setup

README = Path(__file__).parent / "README.md"

CORE = [
    "torch>=2.4",
    "torchvision>=0.19",
    "fvcore>=0.1.5.post20221221",
    "numpy>=1.24",
    "matplotlib>=3.7",
    "pillow>=9",
]
FRAMEWORK = [
    "mmengine>=0.10.5,<0.11",
    # mmaction2 1.2 wants mmcv < 2.2. mmcv itself has no wheel; mmcv-lite is the same package without
    # compiled operators, which recognizers do not need. An environment that has the full mmcv may
    # keep it: install with `--no-deps` there.
    "mmcv-lite==2.1.0",
    "mmaction2==1.2.0",
    "decord>=0.6",
    "av>=11",  # writes the generated clips; its wheels bring their own H.264 encoder
    "tensorboard>=2.12",
    "importlib_metadata",  # mmaction2 imports it without declaring it
    # mmengine looks packages up through pkg_resources (`_base_ = 'mmaction::...'`), which later
    # releases of setuptools no longer have.
    "setuptools>=77,<81",
]
DEV = ["pytest>=8", "ruff>=0.8"]
EXPORT = ["onnx>=1.16", "onnxscript>=0.1", "onnxruntime>=1.18", "openvino>=2024.3"]

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
    extras_require={"dev": DEV, "export": EXPORT},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
