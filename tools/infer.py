#!/usr/bin/env python
"""Predict videos: label, score, policy, GMACs and milliseconds of each.

    python tools/infer.py CONFIG CHECKPOINT INPUT... [--out RESULTS.jsonl] [--gmacs G]
        [--also CONFIG CHECKPOINT]

A CHECKPOINT may be a file that tools/export.py wrote, .onnx or .xml; it runs on the CPU.
An INPUT is a video, a folder of videos, a pattern in quotes, or a list as the config's dataset reads
it (.txt; labels may be missing). Of few videos a table is printed, of many a summary. Rows are
appended beside --out as they come; a run that was killed goes on when it is started again, in
however many processes (bash tools/dist_infer.sh). A video that does not decode is a row with its
error.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.experiments.inference import InferenceOptions, RunOptions, infer
    from ada3d_fx.progress import Console


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser, "an Ada3D config or a plain recognizer's")
    cli.add_checkpoint(parser, "its checkpoint, or an exported file (.onnx, .xml)")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="videos, folders, patterns, lists"
    )
    parser.add_argument(
        "--out", type=values.output_file, metavar="FILE",
        help="write a row for each video to this .jsonl or .csv file (default: no file)",
    )  # fmt: skip
    parser.add_argument(
        "--also", nargs=2, metavar=("CONFIG", "CHECKPOINT"),
        help="a second model for the same videos, such as the plain recognizer or an exported file; "
        "what differs is counted (default: none)",
    )  # fmt: skip
    cli.add_policy(parser, ("learned", "full"), "", "the config's, mostly learned")
    parser.add_argument(
        "--threshold", type=float, metavar="P",
        help="what the greedy policy's probabilities must exceed, 0 to 1 (default: the config's)",
    )  # fmt: skip
    cli.add_gmacs(parser)
    parser.add_argument(
        "--data-prefix", metavar="DIR",
        help="the folder to which the paths in lists are relative (default: the config's)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=values.whole_number, default=8, metavar="N",
        help="clips that are run at once, of one video or several",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=values.natural, metavar="N",
        help="processes that decode; 0: none (default: one for each core but one, at most 8)",
    )  # fmt: skip
    parser.add_argument(
        "--device", help="such as cpu or cuda:0 (default: a GPU if there is one)"
    )  # fmt: skip
    parser.add_argument(
        "--pictures", metavar="DIR", help="draw what was decided for each video (default: not)"
    )
    parser.add_argument(
        "--animations", metavar="DIR", help="the same as an animated GIF (default: not)"
    )
    parser.add_argument(
        "--scores", action="store_true", help="keep the scores of all classes in the rows"
    )
    parser.add_argument(
        "--profile", action="store_true",
        help="tell where the seconds went: of which part of predicting, and of decoding",
    )  # fmt: skip
    cli.add_redo(parser)
    cli.add_json(parser, "the summary")
    cli.add_launcher(parser)
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Predict, and print the table and the summary."""
    args = parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    model = InferenceOptions(
        args.policy, args.threshold, args.gmacs, args.calibrate_on, args.data_prefix
    )
    options = RunOptions(
        args.out, model, args.also and tuple(args.also), args.batch_size, args.workers, args.device,
        args.pictures, args.animations, args.scores, args.redo, args.json, args.profile,
        args.launcher,
    )  # fmt: skip
    summary = infer(
        args.config, args.cfg_options, args.checkpoint, args.inputs, options, Console(args.verbose)
    )
    if summary is not None:
        print(summary)


if __name__ == "__main__":
    sys.exit(main())
