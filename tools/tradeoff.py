#!/usr/bin/env python
"""Accuracy over cost: train at several values (figure 3), or set one checkpoint's threshold.

    python tools/tradeoff.py CONFIG --recognizer-checkpoint FILE --gammas 1,2,4,8,16
    python tools/tradeoff.py CONFIG --recognizer-checkpoint FILE --gmacs 0.2,0.3,0.4 [--folds 0,1]
    python tools/tradeoff.py CONFIG --checkpoint FILE --gmacs 0.2,0.3,0.4

Without --checkpoint, Ada3D and Random FT are trained at each value, as tools/compare.py does,
resumable part by part; parts in DIR that were made from something else are named, and made anew
with --redo. With --checkpoint nothing is trained: for each cost the threshold of the greedy
policies is set on the list of --calibrate-on, then the test list is run. Where the config has
model.exit (--cfg-options model.exit=0.9), a second curve shows the same checkpoint with clips that
need no recognizer. Leaves DIR/tradeoff.json, tradeoff.md and tradeoff.png.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.comparison.run import Setup
    from ada3d_fx.comparison.tradeoff import tradeoff
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser)
    swept = parser.add_mutually_exclusive_group(required=True)
    swept.add_argument(
        "--gmacs", type=values.positives, metavar="A,B,...",
        help="GMACs per clip, selection network included: the budgets at which to train, or the "
        "costs for which to set the threshold of --checkpoint",
    )  # fmt: skip
    swept.add_argument(
        "--gammas", type=values.numbers, metavar="A,B,...",
        help="values of the objective's gamma at which to train",
    )  # fmt: skip
    cli.add_recognizer_checkpoint(parser)
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="test this trained Ada3D checkpoint; train nothing"
    )
    cli.add_calibrate_on(parser, None, "val with --checkpoint, else train")
    cli.add_work_dir(parser, "the config's, followed by _tradeoff")
    cli.add_seeds(parser)
    cli.add_redo(parser)
    cli.add_verbose(parser)
    args = parser.parse_args()
    if args.checkpoint and (args.gammas or args.recognizer_checkpoint):
        parser.error("--checkpoint takes --gmacs, and trains nothing from another checkpoint")
    return args


@cli.user_errors
def main() -> None:
    """Make the rows and print the table."""
    args = parse_args()
    setup = Setup(
        args.config, args.cfg_options, args.recognizer_checkpoint, args.work_dir,
        calibrate_on=args.calibrate_on or ("val" if args.checkpoint else "train"), redo=args.redo,
    )  # fmt: skip
    option = "gamma" if args.gammas else "budget"
    print(
        tradeoff(
            setup, args.gammas or args.gmacs, option, args.checkpoint, args.seeds, args.folds,
            Console(args.verbose),
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
