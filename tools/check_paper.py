#!/usr/bin/env python
"""The paper's compute columns beside ours: tables 1, 3 and 4, and the selection network.

    python tools/check_paper.py [--json PAPER.json]

Clips of 256x256, the paper's convention (no BatchNorm). For a row with learned or random policies,
the expected price of random policies that use as many frames and stages, with and without the
selection network. Takes half a minute; reads neither data nor checkpoints.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli
    from ada3d_fx.experiments.paper import check_paper
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_json(parser, "the rows")
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Print the table."""
    args = parse_args()
    print(check_paper(args.json, Console(args.verbose)))


if __name__ == "__main__":
    sys.exit(main())
