# The generated clips at 48 x 48 pixels, for recognizers that take squares only.
_base_ = ["generated_clips.py"]
train_pipeline = [
    dict(type="InMemoryDecordInit"),
    dict(type="SampleFrames", clip_len=8, frame_interval=2, num_clips=1),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(48, 48), keep_ratio=False),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
val_pipeline = [
    dict(type="InMemoryDecordInit"),
    dict(type="SampleFrames", clip_len=8, frame_interval=2, num_clips=1, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="Resize", scale=(48, 48), keep_ratio=False),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = dict(dataset=dict(pipeline=val_pipeline))
