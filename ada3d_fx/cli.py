"""What the command-line tools share: options, errors without a traceback, versions, progress."""

from __future__ import annotations

import functools
import logging
import platform
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import torch

from . import __version__
from .errors import Ada3DError


def user_errors(main: Callable[[], None]) -> Callable[[], int]:
    """Print the user's mistakes as one message and return 2; anything else is ours and is
    raised."""

    @functools.wraps(main)
    def wrapped() -> int:
        try:
            main()
        except Ada3DError as error:
            # one from a data loader's worker process comes with its traceback in the message
            message = str(error).rsplit("Ada3DError: ", 1)[-1]
            print(f"error: {message.strip()}", file=sys.stderr)
            return 2
        return 0

    return wrapped


@contextmanager
def quiet() -> Iterator[None]:
    """Without what recognizers' constructors log and warn of."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def versions() -> dict[str, str | None]:
    """What a result was made with: this package, its commit if it is a checkout, and what it stands
    on."""
    return {
        "ada3d_fx": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "fvcore": metadata.version("fvcore"),
        "mmaction2": metadata.version("mmaction2"),
        "mmengine": metadata.version("mmengine"),
        "python": platform.python_version(),
    }


def provenance(config: str | Path, begin: float) -> dict:
    """What a tool's report says of its own making: command, config, seconds since ``begin`` (of
    `time.monotonic`) and versions."""
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "config": str(config),
        "seconds": round(time.monotonic() - begin, 1),
        "versions": versions(),
    }


def _commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() or None
