# Stage 0 on lip_words: a small I3D from scratch. Made on folds 0 to 2; folds 3 and 4 are held aside.
_base_ = [
    "_base_/models/i3d_r18_lip_words.py",
    "_base_/datasets/lip_words.py",
    "_base_/default_runtime.py",
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=30, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.05))
param_scheduler = [
    dict(
        type="OneCycleLR",
        eta_max=3e-3,
        total_steps=30,
        pct_start=0.3,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
work_dir = "work_dirs/lip_words/stage0"
