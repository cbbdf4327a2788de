"""Videos through an Ada3D model on a Ray cluster: rows of paths in, rows with predictions out.

python docs/ray_inference.py CONFIG CHECKPOINT VIDEOS.txt OUT.parquet [PROCESSES [GPUS_EACH]]

VIDEOS.txt has a path a line, which all machines see, as they see CONFIG and CHECKPOINT.
"""

import sys

import ray

from ada3d_fx.mm import Ada3DInferencer


def main(config, checkpoint, videos, out, processes="2", gpus="0"):
    """Predict the videos of a list, and write the rows."""
    rows = ray.data.read_text(videos).rename_columns({"text": "video"})
    rows = rows.repartition(4 * int(processes))  # so that there is work for all of them
    predicted = rows.map_batches(
        Ada3DInferencer,  # built once in each process
        # Ray's processes decode themselves, while others are at the network
        fn_constructor_kwargs=dict(config=config, checkpoint=checkpoint, num_workers=0),
        batch_size=64,  # videos; their clips are run in batches of the inferencer's own
        concurrency=int(processes),
        num_gpus=float(gpus),
    )
    predicted.write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
