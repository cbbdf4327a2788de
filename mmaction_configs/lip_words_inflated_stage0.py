# Stage 0 on lip_words, inflated from torchvision's MobileNetV2: 16 frames of 96x64 and their differences,
# from ImageNet weights.
_base_ = [
    "_base_/models/inflated_mobilenet_v2.py",
    "_base_/datasets/lip_words.py",
    "_base_/default_runtime.py",
    "_base_/schedules/inflated_stage0.py",
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
work_dir = "work_dirs/lip_words/inflated_stage0"
