#!/usr/bin/env python
"""Export a checkpoint as a file for ONNX Runtime, OpenVINO or torch.export, and check it.

    python tools/export.py CONFIG CHECKPOINT [--to onnx | openvino | torch] [--out FILE]
        [--policy 5/10100] [--gmacs 0.4 | --threshold 0.6] [--no-selection] [--int8]

The file holds the adaptive network with its selection network: each clip decides, or is given its
policy. With --policy it is a plain network of one fixed policy. `ada3d_fx.Session(FILE)` runs it, and
needs neither torch nor MMAction2. A file whose results differ from the checkpoint's is not written.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.experiments.exporting import ExportOptions, export_checkpoint
    from ada3d_fx.export import SUFFIXES
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser, "an Ada3D config or a plain recognizer's")
    cli.add_checkpoint(parser, "its checkpoint")
    parser.add_argument(
        "--to", choices=list(SUFFIXES), help="the engine (default: by the ending of --out, or onnx)"
    )
    endings = ", ".join(SUFFIXES.values())
    parser.add_argument(
        "--out", type=values.output_file, metavar="FILE",
        help=f"the file to write, which ends with {endings} (default: beside the checkpoint)",
    )  # fmt: skip
    cli.add_policy(parser, ("full", "literal"), "", "adaptive: each clip has its own")
    parser.add_argument(
        "--no-selection", action="store_true",
        help="leave the selection network out: policies are given (default: it is inside)",
    )  # fmt: skip
    cli.add_threshold(parser)
    cli.add_gmacs(parser)
    cli.add_clip_shape(parser, "the config's")
    parser.add_argument(
        "--int8", action="store_true",
        help="quantise the recognizer to eight bits, on clips of the list --calibrate-on; needs nncf",
    )  # fmt: skip
    parser.add_argument(
        "--calibration-clips", type=values.whole_number, default=128, metavar="N",
        help="videos of the list on which --int8 measures the ranges of values (default: 128)",
    )  # fmt: skip
    parser.add_argument(
        "--agreement", type=float, default=0.9, metavar="SHARE",
        help="with --int8, the least share of these clips that must get the label of float32, else "
        "nothing is written (default: 0.9)",
    )  # fmt: skip
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Export, and say what the file holds."""
    args = parse_args()
    options = ExportOptions(
        args.to, args.out, args.policy, not args.no_selection, args.threshold, args.gmacs,
        args.calibrate_on, args.clip_shape, args.int8, args.calibration_clips, args.agreement,
    )  # fmt: skip
    console = Console(args.verbose)
    print(export_checkpoint(args.config, args.cfg_options, args.checkpoint, options, console))


if __name__ == "__main__":
    sys.exit(main())
