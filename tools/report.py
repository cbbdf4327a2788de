#!/usr/bin/env python
"""Write one self-contained HTML page of an experiment.

    python tools/report.py DIR [--tradeoff DIR2] [--out DIR/report.html] [--title TEXT]

DIR is what tools/compare.py left (report.json, usage.png, policies.png), DIR2 what
tools/tradeoff.py left. Pictures are embedded; the page needs nothing beside it.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.experiments.html_page import write_page


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("folder", metavar="DIR", help="what tools/compare.py left")
    parser.add_argument(
        "--tradeoff", metavar="DIR", help="what tools/tradeoff.py left (default: no trade-off)"
    )
    parser.add_argument(
        "--out", type=values.output_file, metavar="FILE",
        help="the page (default: DIR/report.html)",
    )  # fmt: skip
    parser.add_argument("--title", metavar="TEXT", help="its heading (default: the config's name)")
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Write the page and print its path."""
    args = parse_args()
    print(write_page(args.folder, args.tradeoff, args.out, args.title))


if __name__ == "__main__":
    sys.exit(main())
