#!/usr/bin/env python
"""What converts: every 3D recognizer that MMAction2 ships, or a config of your own.

    python tools/show_support.py [--families slowfast,x3d] [--summary] [--format markdown]
    python tools/show_support.py CONFIG [--clip-shape C,T,H,W]

Builds each recognizer, converts it at the clips of its own test pipeline, and prints one row per
config: T, the stages, the frame unit, how it runs, and the share of multiply-adds that turning
all stages off saves; or why not. No weights and no data are needed. All shipped recognizers take
six minutes on two CPU cores.

    python tools/show_support.py --exports --json ROWS.json

Exports each of them too, with random weights, and checks what ONNX Runtime and OpenVINO compute.
This takes hours: a run that was interrupted goes on with the rows that are in the file.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.experiments.support import show_support
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(
        parser, "an Ada3D config or a plain recognizer's (default: all that MMAction2 ships)",
        optional=True,
    )  # fmt: skip
    cli.add_clip_shape(parser, "as the config's test pipeline says")
    cli.add_families(parser, "only these folders of MMAction2's configs (default: all)")
    parser.add_argument(
        "--summary", action="store_true", help="a row for all configs of a family that are alike"
    )
    parser.add_argument(
        "--format", choices=["text", "markdown"], default="text", help="how the table is written"
    )
    parser.add_argument(
        "--exports", action="store_true",
        help="export each recognizer too (hours); rows that the file of --json has are kept",
    )  # fmt: skip
    cli.add_json(parser, "the rows")
    parser.add_argument(
        "--out", type=values.output_file, metavar="FILE", help="write the table to this file too"
    )
    cli.add_verbose(parser)
    args = parser.parse_args()
    if args.config and args.families:
        parser.error("give a CONFIG or --families A,B,..., not both")
    return args


@cli.user_errors
def main() -> None:
    """Convert, and print the table."""
    args = parse_args()
    print(
        show_support(
            args.config, args.cfg_options, args.clip_shape, args.families, args.summary,
            args.format == "markdown", args.json, args.out, Console(args.verbose),
            args.exports,
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
