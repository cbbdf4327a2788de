# Stage 0 on ceiling_actions: a small I3D from scratch, about 8 minutes on two CPU cores.
_base_ = [
    "_base_/models/i3d_r18_small.py",
    "_base_/datasets/ceiling_actions.py",
    "_base_/default_runtime.py",
]
model = dict(
    backbone=dict(base_channels=24, conv1_kernel=(5, 7, 7)),
    cls_head=dict(
        num_classes=8,
        in_channels=192,
        dropout_ratio=0.5,
        label_smooth_eps=0.1,
        loss_cls=dict(
            type="CrossEntropyLoss",
            # Proportional to n ** -0.5 over all 470 clips, with mean 1.
            class_weight=[0.93, 0.85, 1.46, 0.45, 1.12, 0.81, 1.18, 1.20],
        ),
    ),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=40, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.05))
param_scheduler = [
    dict(
        type="OneCycleLR",
        eta_max=2e-3,
        total_steps=40,
        pct_start=0.3,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
work_dir = "work_dirs/ceiling_actions/stage0"
