# Ada3D with I3D-R50, 8 frames, on Mini-Kinetics-200 (table 1). For another data set, such as all of
# Kinetics: --cfg-options train_list=... val_list=... model.recognizer.cls_head.num_classes=...
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/i3d_r50.py",
    "_base_/datasets/long_videos.py",
    "_base_/schedules/ada3d.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/i3d_r50_stage0/epoch_20.pth",
    clip_shape=(3, 8, 256, 256),  # prices are those of the test's clips
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="torchvision.mobilenet_v2"),
        weights=None,  # a file of ImageNet weights, features.* of torchvision's MobileNetV2
        input_size=112,
        input_mean=[127.5, 127.5, 127.5],
        input_std=[127.5, 127.5, 127.5],
    ),
    objective=dict(type="Reinforce", gamma=1.0, samples=4),
)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best="policy/reward", rule="greater"))
