#!/usr/bin/env python
"""Show what was decided for videos: kept frames, stage gates, prediction, cost (figure 4).

    python tools/visualize_policy.py CONFIG CHECKPOINT VIDEO... [--out POLICIES.png]
        [--gif PREVIEW.gif] [--views N] [--gmacs G]

Each clip that the test pipeline takes from a video is a line of the picture (--views of them):
dropped frames are dark and crossed out, stages are green (3D) or grey (2D). The GIF plays the kept
frames beside all frames. --gmacs sets the threshold first, on the list of --calibrate-on.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.experiments.decisions import show_decisions
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser)
    cli.add_checkpoint(parser)
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="a video file")
    parser.add_argument(
        "--out", type=values.output_file, default="policies.png", metavar="FILE",
        help="the picture, as .png",
    )  # fmt: skip
    parser.add_argument(
        "--gif", type=values.output_file, metavar="FILE",
        help="an animated preview, as .gif (default: no file)",
    )  # fmt: skip
    parser.add_argument(
        "--views",
        type=values.whole_number,
        default=1,
        metavar="N",
        help="clips shown of each video",
    )
    cli.add_gmacs(parser)
    cli.add_json(parser, "decisions and predictions")
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Decide, draw, and print the rows."""
    args = parse_args()
    print(
        show_decisions(
            args.config, args.cfg_options, args.checkpoint, args.videos, args.views, args.gmacs,
            args.calibrate_on, args.out, args.gif, args.json, Console(args.verbose),
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
