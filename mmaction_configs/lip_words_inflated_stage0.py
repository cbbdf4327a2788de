# Stage 0 on lip_words, inflated from torchvision's MobileNetV2: 16 frames of 96x64 and their differences,
# from ImageNet weights. The head learns faster than what it stands on.
_base_ = [
    "_base_/models/inflated_mobilenet_v2.py",
    "_base_/datasets/lip_words.py",
    "_base_/default_runtime.py",
]
model = dict(
    backbone=dict(in_channels=6),
    cls_head=dict(num_classes=10, label_smooth_eps=0.1),
    data_preprocessor=dict(
        type="DifferencePreprocessor",
        mean=None,  # the pipeline normalises each clip by itself
        std=None,
        blending=dict(type="MixupBlending", num_classes=10, alpha=0.4),
    ),
)
decode = dict(type="InMemoryDecordInit", scale=(96, 64))
train_pipeline = [
    decode,
    dict(type="UniformSample", clip_len=16, num_clips=1),
    dict(type="DecordDecode"),
    dict(type="RandomShift", pixels=(9, 7)),
    dict(type="Flip", flip_ratio=0.5, direction="horizontal"),
    dict(type="NormalizeClip"),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
val_pipeline = [
    decode,
    dict(type="UniformSample", clip_len=16, num_clips=1, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="NormalizeClip"),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=24, val_interval=6)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=0.02),
    paramwise_cfg=dict(custom_keys=dict(cls_head=dict(lr_mult=5.0))),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=24, by_epoch=True, convert_to_iter_based=True)
]
work_dir = "work_dirs/lip_words/inflated_stage0"
