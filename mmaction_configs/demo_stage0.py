# Stage 0 of the demo: the recognizer alone, on all frames and with all temporal kernels.
_base_ = [
    "_base_/models/i3d_r18_small.py",
    "_base_/datasets/generated_clips.py",
    "_base_/default_runtime.py",
]
# Direction is learned late: many small steps do better than few large ones.
train_dataloader = dict(batch_size=16)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.02))
param_scheduler = [
    dict(
        type="OneCycleLR",
        eta_max=3e-3,
        total_steps=20,
        pct_start=0.2,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
work_dir = "work_dirs/demo/stage0"
