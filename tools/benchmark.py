#!/usr/bin/env python
"""Time a recognizer, dense and with Ada3D, in one interleaved run of all backends that are asked for.

    python tools/benchmark.py CONFIG [--clips 1,4,8] [--clip-shape 3,8,224,224] [--usage 23/32:9/20] ...
    python tools/benchmark.py CONFIG --engine torch,openvino,onnxruntime [--compile] [--int8] ...
    python tools/benchmark.py CONFIG --clips 32 --amp --profile   # on a GPU
    python tools/benchmark.py CONFIG --training --clips 16 [--samples 4] ...

CONFIG is an Ada3D config or a plain recognizer's. Weights are random: time does not depend on them. Rows are
compared with the fastest dense one of all backends; the selection network's time is in the rows 'inside'.
"""

from __future__ import annotations

import argparse
import sys
import warnings

with warnings.catch_warnings(record=True):
    warnings.simplefilter("ignore")  # what other packages warn of while they are imported
    from ada3d_fx import cli, values
    from ada3d_fx.progress import Console
    from ada3d_fx.timing.benchmark import BACKENDS, measure
    from ada3d_fx.timing.networks import DEFAULT_USAGES, Request
    from ada3d_fx.timing.text import text


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = cli.parser(__doc__)
    cli.add_config(parser, "an Ada3D config or a plain recognizer's")
    cli.add_clip_shape(parser, "the config's channels and frames, at 224 x 224")
    parser.add_argument(
        "--clips", type=values.counts, default=[4], metavar="N,...",
        help="clips in a batch; a run and a table for each number (default: 4)",
    )  # fmt: skip
    parser.add_argument(
        "--usage", type=values.usage, action="append", metavar="FRAMES:STAGES",
        help="time random policies that keep these fractions, such as 0.7:0.4 or 23/32:9/20; may "
        "be repeated (default: 0.7:0.4 and 0.5:0.2)",
    )  # fmt: skip
    cli.add_policy(parser, ("file",), "", "no such row")
    parser.add_argument(
        "--repeats", type=values.whole_number, default=7, metavar="N",
        help="rounds; each times every row once",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=values.whole_number, metavar="N", help="CPU threads (default: torch's)"
    )
    parser.add_argument(
        "--device", help="a torch device (default: a GPU if there is one, the CPU beside engines)"
    )
    parser.add_argument(
        "--engine", type=values.words, default=["torch"], metavar="A,B,...",
        help=f"backends whose rows are timed, of {', '.join(BACKENDS)} (default: torch)",
    )  # fmt: skip
    parser.add_argument(
        "--compile", action="store_true", help="time torch.compile too, which compiles for minutes"
    )
    parser.add_argument(
        "--int8", action="store_true", help="time the engines' files in int8 too; needs nncf"
    )
    parser.add_argument(
        "--memory", action="store_true",
        help="measure the peak memory of torch's rows too, each in a process of its own",
    )  # fmt: skip
    parser.add_argument(
        "--profile", action="store_true",
        help="tell where torch's rows spend their time, by kind of operation",
    )  # fmt: skip
    parser.add_argument(
        "--training", action="store_true", help="time steps of fine-tuning and both phases instead"
    )
    parser.add_argument(
        "--phase", type=int, choices=(1, 2), help="time the steps of this phase of training only"
    )
    parser.add_argument(
        "--samples", type=values.whole_number, default=4, metavar="N",
        help="policies of each clip in a step of training",
    )  # fmt: skip
    parser.add_argument(
        "--forms", action="store_true",
        help="time each --usage in every form of temporal convolutions too (on a GPU: always)",
    )  # fmt: skip
    parser.add_argument(
        "--amp", action="store_true", help="time torch's rows under autocast in bfloat16 too"
    )
    parser.add_argument(
        "--ragged", action="store_true",
        help="let the clips of each --usage keep different numbers of frames, from few to many",
    )  # fmt: skip
    parser.add_argument(
        "--eager-only", action="store_true",
        help="of torch's dense rows, time the recognizer as it is only, which takes half as long",
    )  # fmt: skip
    cli.add_seed(parser, 0)
    parser.add_argument(
        "--out", type=values.output_file, metavar="FILE",
        help="draw the seconds and their intervals, as .png (default: no picture)",
    )  # fmt: skip
    cli.add_json(parser, "the figures, with the seconds of every round")
    cli.add_verbose(parser)
    return parser.parse_args()


@cli.user_errors
def main() -> None:
    """Measure and print the tables."""
    args = parse_args()
    request = Request(
        args.config, args.cfg_options, args.clip_shape, args.clips, args.usage or DEFAULT_USAGES,
        args.policy, args.repeats, args.engine, args.threads, args.device, args.seed, args.int8,
        args.compile, args.memory, args.profile, args.training, args.samples, args.forms, args.amp,
        args.ragged, args.eager_only, args.phase,
    )  # fmt: skip
    print(text(measure(request, args.json, args.out, Console(args.verbose))))


if __name__ == "__main__":
    sys.exit(main())
