# The 16-frame variant of ada3d_i3d_r50.py (table 1, bottom).
_base_ = ["ada3d_i3d_r50.py"]
model = dict(
    clip_shape=(3, 16, 256, 256),
    recognizer_checkpoint="work_dirs/i3d_r50_16x8_stage0/epoch_20.pth",
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=16)
val_pipeline = _base_.val_pipeline
val_pipeline[1].update(clip_len=16)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=16)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
