# Stage 0: I3D-R50 alone, 16 frames.
_base_ = ["i3d_r50_stage0.py"]
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(clip_len=16)
val_pipeline = _base_.val_pipeline
val_pipeline[1].update(clip_len=16)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(clip_len=16)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
