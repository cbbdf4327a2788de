#!/usr/bin/env python
"""Time a recognizer dense and packed, in one interleaved run, and say what was saved in seconds.

    python tools/benchmark.py CONFIG [--clips 4] [--clip-shape 3,8,224,224] [--usage 23/32:9/20] ...

CONFIG is an Ada3D config or a plain recognizer's. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    import torch

    from ada3d_fx import cli, values
    from ada3d_fx.experiments import engine_timing, timing
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser, "an Ada3D config or a plain recognizer's")
    cli.add_clip_shape(parser, "the config's channels and frames, at 224 x 224")
    parser.add_argument(
        "--clips", type=values.whole_number, default=4, metavar="N", help="clips in a batch"
    )
    parser.add_argument(
        "--usage", type=values.usage, action="append", metavar="FRAMES:STAGES",
        help="time random policies that keep these fractions, such as 0.7:0.4 or 23/32:9/20; may "
        "be repeated (default: 0.7:0.4 and 0.5:0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--repeats",
        type=values.whole_number,
        default=7,
        metavar="N",
        help="rounds; each times every row once",
    )
    parser.add_argument(
        "--threads", type=values.whole_number, metavar="N", help="CPU threads (default: torch's)"
    )
    parser.add_argument("--device", help="a torch device (default: a GPU if there is one)")
    parser.add_argument(
        "--engine", choices=list(engine_timing.SUFFIX),
        help="time exported files in this engine, against the dense network in it (default: torch)",
    )  # fmt: skip
    parser.add_argument(
        "--int8", action="store_true", help="with --engine, time files in int8 too; needs nncf"
    )
    cli.add_seed(parser, 0)
    cli.add_json(parser, "the figures")
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Measure and print the table."""
    args = parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.engine:
        result = engine_timing.measure_engine(
            args.config, args.cfg_options, args.clip_shape, args.clips,
            args.usage or timing.DEFAULT_USAGES, args.repeats, args.engine, args.threads, args.seed,
            args.json, Console(args.verbose), args.int8,
        )  # fmt: skip
        print(engine_timing.text(result))
        return
    result = timing.measure(
        args.config, args.cfg_options, args.clip_shape, args.clips,
        args.usage or timing.DEFAULT_USAGES, args.repeats, args.device, args.seed, args.json,
        Console(args.verbose),
    )  # fmt: skip
    print(timing.text(result))


if __name__ == "__main__":
    sys.exit(main())
