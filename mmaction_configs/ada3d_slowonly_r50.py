# Ada3D with SlowOnly-R50, 8 frames: two stages to select, res4 and res5.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/slowonly_r50.py",
    "_base_/datasets/long_videos.py",
    "_base_/schedules/ada3d.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/slowonly_r50_stage0/epoch_20.pth",
    clip_shape=(3, 8, 256, 256),
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="torchvision.mobilenet_v2"),
        weights=None,
        input_size=112,
        input_mean=[127.5, 127.5, 127.5],
        input_std=[127.5, 127.5, 127.5],
    ),
    objective=dict(type="Reinforce", gamma=1.0, samples=4),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best="policy/reward", rule="greater"))
