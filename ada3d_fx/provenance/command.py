"""What a result was made with."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import torch

from .. import __version__


def versions() -> dict[str, str | None]:
    """Return the versions of this package, its commit if it is a checkout, and of what it stands on."""
    return {
        "ada3d_fx": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "fvcore": metadata.version("fvcore"),
        "mmaction2": metadata.version("mmaction2"),
        "mmengine": metadata.version("mmengine"),
        "python": platform.python_version(),
    }


def command_line() -> str:
    """Return the command line of this process."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def provenance(config: str | Path, begin: float) -> dict:
    """Return what a tool's report says of its own making.

    Args:
        config: the config's path.
        begin: when the tool began, of `time.monotonic`.

    Returns:
        The command, the config, seconds since ``begin``, and versions.
    """
    return {
        "command": command_line(),
        "config": str(config),
        "seconds": round(time.monotonic() - begin, 1),
        "versions": versions(),
    }


def _commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True,
            encoding="utf-8",
        )  # fmt: skip
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
