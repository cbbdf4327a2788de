"""What the command-line tools share: the vocabulary of options, and errors without tracebacks.

An option that several tools take is added by one function here, so that it has one name, one
meaning and one help text. A tool is `parse_args()`, which only parses, and `main()`.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
import warnings
from collections.abc import Callable
from typing import NoReturn

from . import progress, values
from .errors import Ada3DError, said_to_users

POLICIES = {
    "learned": "learned: the selection network's greedy policies",
    "full": "full: all frames, all stages 3D",
    "random": "random[:{options}]: random policies that use these fractions on average",
    "fixed": "FRAMES/STAGES: the same bits for all clips, such as 1011/10100",
    "literal": "FRAMES/STAGES: bits of both such as 1011/10100, or a number of frames and bits",
    "file": "FILE: a .json or .csv file of policies that tools/test.py wrote",
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and whose abbreviations are none."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with status 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the text around the options, and tells the defaults of options."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        told = "default" in text or action.default in (None, False, argparse.SUPPRESS)
        if told or action.default == [] or not action.option_strings:
            return text
        return f"{text} (default: %(default)s)"


def parser(doc: str) -> Parser:
    """Make a parser that says in --help what the tool's docstring says.

    Args:
        doc: the docstring: its first line is the description, the rest follows the options.
    """
    first, _, rest = doc.strip().partition("\n")
    return Parser(
        description=first, epilog=rest.strip("\n"), formatter_class=HelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip


# ------------------------------------------------------------------------------------- options


def add_config(
    parser: argparse.ArgumentParser, about: str = "an Ada3D config", optional: bool = False
) -> None:
    """Add CONFIG, and --cfg-options as a list of KEY=VALUE."""
    parser.add_argument("config", nargs="?" if optional else None, metavar="CONFIG", help=about)
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE",
        help="config entries to set, such as model.objective.gamma=4",
    )  # fmt: skip


def add_checkpoint(
    parser: argparse.ArgumentParser, about: str = "a trained Ada3D checkpoint"
) -> None:
    """Add CHECKPOINT, a file."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=about)


def add_recognizer_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add --recognizer-checkpoint, from which runs start."""
    parser.add_argument(
        "--recognizer-checkpoint", metavar="FILE",
        help="the trained plain recognizer to start from; {seed} and {fold} stand for the "
        "run's (default: the config's recognizer_checkpoint)",
    )  # fmt: skip


def add_work_dir(parser: argparse.ArgumentParser, default: str = "the config's work_dir") -> None:
    """Add --work-dir, for logs, checkpoints and results."""
    parser.add_argument(
        "--work-dir", metavar="DIR", help=f"where logs and results go (default: {default})"
    )


def add_redo(parser: argparse.ArgumentParser) -> None:
    """Add --redo of a tool that uses again what lies in its work dir."""
    parser.add_argument(
        "--redo", action="store_true",
        help="make anew what was made from another config, other data or other code, and keep the "
        "old part beside it as NAME.old-1 (default: say what differs and stop)",
    )  # fmt: skip


def add_seed(parser: argparse.ArgumentParser, default: int | None = None) -> None:
    """Add --seed of a tool that makes one run."""
    told = "" if default is not None else " (default: the config's)"
    parser.add_argument("--seed", type=values.seed, default=default, help=f"random seed{told}")


def add_seeds(parser: argparse.ArgumentParser) -> None:
    """Add --seeds and --folds of a tool that makes a run for each."""
    parser.add_argument(
        "--seeds", type=values.seeds, default=[0], metavar="A,B,...",
        help="random seeds, a run each (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--folds", type=values.whole_numbers, default=[None], metavar="A,B,...",
        help="values of the config's `fold`, a run each (default: the config's own)",
    )  # fmt: skip


def add_clip_shape(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --clip-shape C,T,H,W."""
    parser.add_argument(
        "--clip-shape", type=values.clip_shape, metavar="C,T,H,W",
        help=f"channels, frames, height and width of a clip (default: {default})",
    )  # fmt: skip


def add_gmacs(parser: argparse.ArgumentParser) -> None:
    """Add --gmacs of a tool that tests one checkpoint, and --calibrate-on."""
    parser.add_argument(
        "--gmacs", type=values.positive, metavar="G",
        help="GMACs per clip, selection network included: set the threshold of the greedy policies "
        "so that they cost this on average (default: the config's threshold)",
    )  # fmt: skip
    add_calibrate_on(parser, "val")


def add_threshold(parser: argparse.ArgumentParser) -> None:
    """Add --threshold of the greedy policies."""
    parser.add_argument(
        "--threshold", type=float, metavar="P",
        help="what the greedy policies' probabilities must exceed (default: the config's)",
    )  # fmt: skip


def add_calibrate_on(
    parser: argparse.ArgumentParser, default: str | None, told: str | None = None
) -> None:
    """Add --calibrate-on, the list on which the threshold is set.

    Args:
        parser: takes the option.
        default: 'train' or 'val'; None: the tool chooses.
        told: what the tool chooses, for the help.
    """
    parser.add_argument(
        "--calibrate-on", choices=["train", "val"], default=default,
        help="the list on whose clips a threshold is set, the training or the validation list "
        f"(default: {told or default})",
    )  # fmt: skip


def add_policy(
    parser: argparse.ArgumentParser, kinds: tuple[str, ...], random: str, default: str,
    several: bool = False,
) -> None:  # fmt: skip
    """Add --policy; its grammar is that of `report.records.parse_policy`.

    Args:
        parser: takes the option.
        kinds: those of `POLICIES` that the tool takes.
        random: the options of 'random', with their defaults.
        default: what the tool does without the option.
        several: the option may be repeated.
    """
    words = "; ".join(POLICIES[kind].format(options=random) for kind in kinds)
    parser.add_argument(
        "--policy", metavar="POLICY", action="append" if several else "store",
        default=[] if several else None,
        help=f"{words}{'; may be repeated' if several else ''} (default: {default})",
    )  # fmt: skip


def add_families(parser: argparse.ArgumentParser, about: str) -> None:
    """Add --families, folders of MMAction2's configs."""
    parser.add_argument("--families", type=values.words, metavar="A,B,...", help=about)


def add_json(parser: argparse.ArgumentParser, what: str) -> None:
    """Add --json, a file for machines."""
    parser.add_argument(
        "--json", type=values.output_file, metavar="FILE",
        help=f"write {what} to this file, for machines (default: no file)",
    )  # fmt: skip


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add --launcher and --local_rank, as MMAction2's own tools have them."""
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none",
        help="who starts the processes of a distributed run",
    )  # fmt: skip
    parser.add_argument(
        "--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS
    )  # given by older launchers


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add --verbose."""
    parser.add_argument(
        "--verbose", action="store_true",
        help="show on the console what else goes to the log file only",
    )  # fmt: skip


# -------------------------------------------------------------------------------------- errors


def user_errors(main: Callable[[], None]) -> Callable[[], int]:
    """Make a tool's ``main`` print the user's mistakes as one message and return 2.

    A file that cannot be written is such a mistake too. An interrupted tool returns 130, one whose
    output nobody reads any more 141, as shells say it. Other errors are ours and are raised. What
    other packages warn of is not shown meanwhile. A process of a distributed run leaves the others
    when it is done, and not after an error: they may wait for it, and it would wait for them.
    """

    @functools.wraps(main)
    def wrapped() -> int:
        progress.print_every_name()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"(?!ada3d_fx\b)")
                main()
            _leave_other_processes()
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            progress.print_no_more()
            return 141
        except (Ada3DError, OSError, UnicodeEncodeError) as error:
            message = said_to_users(error)
            if message is None:
                raise
            print(f"error: {message}", file=sys.stderr)
            return 2
        return 0

    return wrapped


def _leave_other_processes() -> None:
    """End the threads that speak to other processes, before Python ends.

    Gloo's threads may still hold a tensor of the last exchange. One that drops it while Python ends
    waits for Python's lock, is ended there, and C++ takes that for a crash: signal 6 (torch's issue
    190489). Torch 2.4 waits for these threads with the lock held, so they get time to drop it first.
    """
    distributed = sys.modules.get("torch.distributed")  # who has not imported it has not joined
    if distributed and distributed.is_available() and distributed.is_initialized():
        time.sleep(0.5)
        distributed.destroy_process_group()
