# Stage 0 of a small VideoMAE on the demo's generated clips: the recognizer alone, on all frames.
_base_ = [
    "_base_/models/videomae_small.py",
    "_base_/datasets/generated_squares.py",
    "_base_/default_runtime.py",
]
train_dataloader = dict(batch_size=16)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=30, val_interval=10)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.02))
param_scheduler = [
    dict(
        type="OneCycleLR",
        eta_max=1e-3,
        total_steps=30,
        pct_start=0.2,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
work_dir = "work_dirs/demo_videomae/stage0"
