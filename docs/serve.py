"""An exported network in a service of its own: ONNX Runtime and NumPy, and nothing of ada3d_fx.

python docs/serve.py NETWORK.onnx CLIPS.npy [THRESHOLD]

NETWORK.onnx has its selection network inside (tools/export.py); CLIPS.npy holds clips of its shape,
float32 [N, C, T, H, W], normalised as its description says.
"""

import json
import sys

import numpy as np
import onnxruntime


def main(network, clips, threshold=None):
    """Print the label, the score and the policy of each clip."""
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["ada3d_fx"])
    num_frames, num_stages = about["clip_shape"][1], len(about["stages"])
    inputs = {
        "clips": np.load(clips).astype(np.float32),
        "frames": np.zeros((0, num_frames), dtype=bool),  # no policy is given: each clip decides
        "stages": np.zeros((0, num_stages), dtype=bool),
        "threshold": np.array(threshold or about["threshold"], dtype=np.float32),
        "score": np.array(True),  # False: decide only
    }
    names = ["scores", "chosen_frames", "chosen_stages"]
    for scores, frames, stages in zip(*session.run(names, inputs), strict=True):
        label = int(scores.argmax())
        name = about["classes"][label] if about["classes"] else label
        bits = ["".join("01"[on] for on in part.astype(int)) for part in (frames, stages)]
        print(name, f"{scores[label]:.4f}", *bits)


if __name__ == "__main__":
    main(*sys.argv[1:])
