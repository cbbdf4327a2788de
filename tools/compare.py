#!/usr/bin/env python
"""Compare Upper, Random, Random FT, Ada3D and its ablations side by side, over seeds and folds.

    python tools/compare.py CONFIG --recognizer-checkpoint FILE [--rows all] [--seeds 0,1,2]
        [--folds 0,1,2,3] [--variant NAME KEY=VALUE ...] [--work-dir DIR] [--pictures N]

Rows, as in tables 1, 5 and 6 of the paper:

- upper: the recognizer as it is, all frames and all stages;
- random: the same recognizer under random policies that cost what ada3d costs, its selection
  network included;
- random_ft: from the same recognizer, trained under such policies for as many steps as ada3d;
- ada3d: the config's own training phases, then the greedy policies;
- shuffled: ada3d's recognizer under ada3d's policies, shuffled among the clips;
- recognizer_only, recognizer_shuffled, selector_only: where the config predicts with both
  networks, ada3d and shuffled by the scores of one of them; the last without any policy;
- upper_both, random_ft_both: upper's and random_ft's recognizers, whose scores are added to those
  of ada3d's selection network; random policies such that both cost what ada3d costs;
- static_ft: from the same recognizer, trained for as many steps as random_ft under the best policy
  that is one for all clips. It may cost what ada3d costs, selection network included; of patterns
  of frames and sets of stages at that price, the one under which the recognizer after the warm-up
  is right for most of 512 training clips (of equals the cheaper one) is taken and told;
- upper_small: the same under as many evenly spaced frames as that price allows, all stages on;
- upper_ft: from the same recognizer, all frames and all stages, trained for as many steps as ada3d;
- no_phase1, no_phase2: without the selection network's own phase, without joint training;
- random_frames, random_stages: one of the two policies random, of ada3d's usage; the other learned;
- each --variant: ada3d with other config entries. It shares ada3d's warm-up if it changes nothing
  that a warm-up reads.

With a budget in the config (model.objective.budget), the threshold of greedy policies is set so
that they cost it. Every part leaves its result in DIR and is not repeated as long as it would be
made from the same config, data and code: an interrupted comparison goes on where it stopped, more
seeds and rows add to it, and several processes may share DIR if they take different seeds or folds.
What was made from something else is named, and made anew with --redo. Leaves DIR/report.json,
report.txt, report.md, usage.png, and with --pictures policies.png.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.comparison.compare import compare, parse_variants
    from ada3d_fx.comparison.rows import MAIN
    from ada3d_fx.comparison.run import Setup
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser)
    cli.add_recognizer_checkpoint(parser)
    cli.add_work_dir(parser)
    parser.add_argument(
        "--rows", type=values.words, default=list(MAIN), metavar="A,B,...",
        help=f"names of rows, see below, or all (default: {','.join(MAIN)})",
    )  # fmt: skip
    cli.add_seeds(parser)
    parser.add_argument(
        "--variant", nargs="+", action="append", default=[], metavar=("NAME", "KEY=VALUE"),
        help="one more row, ada3d with these config entries; may be given several times",
    )  # fmt: skip
    cli.add_calibrate_on(parser, "train")
    parser.add_argument(
        "--pictures", type=int, default=0, metavar="N", help="draw the policies of N clips"
    )
    parser.add_argument("--report-only", action="store_true", help="report what DIR holds already")
    cli.add_redo(parser)
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Make the rows and print the tables."""
    args = parse_args()
    setup = Setup(
        args.config, args.cfg_options, args.recognizer_checkpoint, args.work_dir,
        parse_variants(args.variant), args.calibrate_on, args.redo,
    )  # fmt: skip
    print(
        compare(
            setup, args.rows, args.seeds, args.folds, args.pictures, args.report_only,
            Console(args.verbose),
        )
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
