# Ada3D with a recognizer inflated from torchvision's ResNet-50, 8 frames, by the paper's schedule.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/inflated_resnet50.py",
    "_base_/datasets/long_videos.py",
    "_base_/schedules/ada3d.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/inflated_resnet50_stage0/epoch_20.pth",
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
