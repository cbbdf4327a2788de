#!/usr/bin/env python
"""Decode every video of lists before a training, and tell which are broken or odd.

    python tools/check_data.py LIST... [--videos DIR] [--num-classes N] [--json FILE]
    python tools/check_data.py --config CONFIG [--cfg-options ...]

Broken: missing, a folder, empty, unreadable, without a video in it, not decodable, a decoder that
crashes or hangs, a line that is none, a label that is no class. Odd: truncated, one frame, shorter
than a clip, huge, another kind of file than its ending says, listed twice.

Leaves with status 0 if nothing is broken, with 1 if something is, with 2 if a list cannot be read.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.errors import Ada3DError
    from ada3d_fx.experiments import data_check
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "lists",
        nargs="*",
        metavar="LIST",
        help="a list in MMAction2's format: path label [label ...]",
    )
    parser.add_argument("--config", metavar="CONFIG", help="check the lists of this config instead")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE",
        help="config entries to set, such as model.objective.gamma=4",
    )  # fmt: skip
    parser.add_argument(
        "--videos", metavar="DIR",
        help="the folder to which the lists' paths are relative (default: each list's own)",
    )  # fmt: skip
    parser.add_argument(
        "--delimiter", default=" ", metavar="TEXT", help="what is between path and labels"
    )
    parser.add_argument(
        "--num-classes", type=values.whole_number, metavar="N",
        help="labels must be below (default: any label is taken)",
    )  # fmt: skip
    parser.add_argument(
        "--clip-frames", type=values.whole_number, default=1, metavar="N",
        help="frames of a video that a clip spans: shorter videos are odd",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=values.whole_number, metavar="N",
        help="how many videos are decoded at a time (default: as many as there are cores)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=values.positive, default=60.0, metavar="SECONDS",
        help="a decoder that gives no further frame for so long hangs",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="decode the first and the last frame only"
    )
    cli.add_json(parser, "all findings")
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Check and print the findings."""
    args = parse_args()
    if bool(args.lists) == bool(args.config):
        raise Ada3DError("give lists, or --config CONFIG for the lists of a config")
    if args.config:
        lists = data_check.lists_of_config(args.config, args.cfg_options)
    else:
        lists = data_check.plain_lists(
            args.lists, args.videos, args.delimiter, args.num_classes, args.clip_frames
        )
    options = data_check.CheckOptions(args.processes, args.timeout, args.quick, args.json)
    text, broken = data_check.check_lists(lists, options, Console())
    print(text)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    sys.exit(main())
