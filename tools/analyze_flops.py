#!/usr/bin/env python
"""What a recognizer's policies cost, and whether Ada3D can pay for it, before any training.

    python tools/analyze_flops.py CONFIG [--policy full | 11011010/10100 | 5/10100 |
        random:frames=0.7,stages=0.4,seed=0,n=1000 | policies.json] [--all] [--out PRICES.png]
    python tools/analyze_flops.py --families i3d,x3d

Takes Ada3D configs and plain recognizers' configs; neither data nor checkpoints are read. Without
a selection network in the config it takes the paper's, MobileNetV2 on frames of 112x112.
With --families, MMAction2's own figures for its recognizers stand beside fvcore's count.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.cost.count import CONVENTIONS
    from ada3d_fx.experiments.listed import compare_listed
    from ada3d_fx.experiments.pricing import POLICY_KINDS, Output, analyze
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser, "an Ada3D config or a plain recognizer's", optional=True)
    cli.add_families(parser, "compare the FLOPs that MMAction2 lists for these folders of configs")
    cli.add_policy(
        parser, POLICY_KINDS, "frames=0.7,stages=0.4,seed=0,n=1000", "none is priced", several=True
    )
    parser.add_argument("--all", action="store_true", help="price every policy there is")
    cli.add_clip_shape(parser, "as the config's test pipeline says")
    parser.add_argument(
        "--views", type=values.whole_number, default=1, metavar="N", help="clips per video"
    )
    parser.add_argument(
        "--selector", choices=["on", "off"], default="on", help="price the selection network too"
    )
    parser.add_argument(
        "--convention", choices=list(CONVENTIONS), default="fvcore",
        help="count as fvcore does, or as the paper does, without normalisation",
    )  # fmt: skip
    parser.add_argument(
        "--executed", type=values.natural, default=0, metavar="N",
        help="count too what the packed program runs for the first N clips of each --policy",
    )  # fmt: skip
    parser.add_argument(
        "--times", action="store_true", help="time conversion, price table and look-ups, in seconds"
    )
    cli.add_json(parser, "everything")
    parser.add_argument(
        "--csv", type=values.output_file, metavar="FILE",
        help="write the priced policies, else the price list, to this file (default: no file)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=values.output_file, metavar="FILE",
        help="draw price over frames, and the cost by stage, as .png (default: no picture)",
    )  # fmt: skip
    cli.add_verbose(parser)
    args = parser.parse_args()
    if (args.config is None) == (args.families is None):
        parser.error("give a CONFIG, or --families A,B,...")
    return args


@cli.user_errors
def main() -> None:
    """Print the prices."""
    args = parse_args()
    console = Console(args.verbose)
    if args.families:
        print(compare_listed(args.families, args.convention, args.json, console))
        return
    output = Output(
        args.policy, args.executed, args.all, args.times, args.json, args.csv, args.out
    )  # fmt: skip
    print(
        analyze(
            args.config, args.cfg_options, args.clip_shape, args.convention, args.selector == "on",
            args.views, output, console,
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
