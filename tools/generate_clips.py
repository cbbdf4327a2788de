#!/usr/bin/env python
"""Generate short H.264 videos for which it is known what each class needs.

    python tools/generate_clips.py [--out data/generated_clips] [--num-train 2400] ...

`static` classes show in any single frame. `motion` classes come in pairs that differ only in the
direction of one change; a single frame, at whatever time index, tells nothing about any of them.
ada3d_fx/experiments/rendering.py says how that is achieved. With --segments, videos are so many
clips with cuts between them, of which some are empty.

Output: `OUT/videos/*/*/*.mp4`, `OUT/train.txt` and `OUT/val.txt` (MMAction2's video list, relative
to `OUT/videos`), and `OUT/classes.txt` (`name kind` per label, in order).

Run again with the same options, it makes again what is missing or damaged in OUT, whose digests are
in `OUT/generated.json`, and goes on where a run was stopped. With other options it replaces the
clips; lists that were edited are never overwritten.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.experiments.generated_clips import generate
    from ada3d_fx.experiments.rendering import CLASSES
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--out", default="data/generated_clips", metavar="DIR", help="folder to write"
    )
    parser.add_argument("--num-train", type=values.integer, default=2400, help="training videos")
    parser.add_argument("--num-val", type=values.integer, default=800, help="validation videos")
    cli.add_seed(parser, 0)
    parser.add_argument(
        "--size", type=values.size, default="56x48", metavar="WIDTHxHEIGHT", help="in pixels, even"
    )
    parser.add_argument("--num-frames", type=values.integer, default=16, help="frames per clip")
    parser.add_argument(
        "--segments",
        type=values.whole_number,
        default=1,
        help="clips per video, of which some show nothing",
    )
    parser.add_argument(
        "--workers", type=values.whole_number, help="processes (default: one for each core)"
    )
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Write the videos and say where."""
    args = parse_args()
    out = generate(
        args.out, args.num_train, args.num_val, args.seed, args.size, args.num_frames,
        args.workers, args.segments, Console(args.verbose),
    )  # fmt: skip
    print(f"{args.num_train} + {args.num_val} clips of {len(CLASSES)} classes in {out}")


if __name__ == "__main__":
    sys.exit(main())
