#!/usr/bin/env python
"""Learn which clips of long videos to look at, on top of a trained Ada3D (table 2).

    python tools/select_clips.py CONFIG CHECKPOINT [--costs 0.05,0.1,0.2,0.4] [--work-dir DIR]

The config's test pipeline gives each video's candidate clips (num_clips of SampleFrames), for the
training list and for the test list. Every clip goes through Ada3D once and its scores are kept;
the clip selector then learns from these in seconds. Compared: all clips (the paper's vanilla),
the first k of an even spread, and the selector at several costs per clip. GMACs are per video: the
selection network's preview of all clips, and the recognizer on the clips looked at. Leaves
DIR/clips.json, clips.md, clips.png and the selectors' weights.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.experiments.clip_selection import select_clips
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser, "an Ada3D config whose test pipeline samples several clips of a video")
    cli.add_checkpoint(parser)
    parser.add_argument(
        "--costs", type=values.numbers, default=[0.05, 0.1, 0.2, 0.4], metavar="A,B,...",
        help="costs of looking at all clips, in units of the reward (default: 0.05,0.1,0.2,0.4)",
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=values.whole_number, default=1500, help="training steps for each cost"
    )
    cli.add_seed(parser, 0)
    cli.add_work_dir(parser)
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Train the clip selectors and print the table."""
    args = parse_args()
    print(
        select_clips(
            args.config, args.cfg_options, args.checkpoint, args.costs, args.steps, args.seed,
            args.work_dir, Console(args.verbose),
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
