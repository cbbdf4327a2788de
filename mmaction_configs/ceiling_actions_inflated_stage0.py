# Stage 0 on ceiling_actions, inflated from torchvision's MobileNetV2: frames of 128x96 and their
# differences, from ImageNet weights.
_base_ = [
    "_base_/models/inflated_mobilenet_v2.py",
    "_base_/datasets/ceiling_actions.py",
    "_base_/default_runtime.py",
    "_base_/schedules/inflated_stage0.py",
]
model = dict(
    backbone=dict(in_channels=6),
    cls_head=dict(
        num_classes=8,
        label_smooth_eps=0.1,
        loss_cls=dict(
            type="CrossEntropyLoss",
            # Proportional to n ** -0.5 over all 470 clips, with mean 1.
            class_weight=[0.93, 0.85, 1.46, 0.45, 1.12, 0.81, 1.18, 1.20],
        ),
    ),
    data_preprocessor=dict(type="DifferencePreprocessor"),
)
decode = dict(type="InMemoryDecordInit", scale=(128, 96))
train_pipeline = [
    decode,
    dict(type="UniformSample", clip_len=8, num_clips=1),
    dict(type="DecordDecode"),
    dict(type="RandomTranspose", prob=0.5),
    dict(type="Resize", scale=(128, 96), keep_ratio=False),
    dict(type="Flip", flip_ratio=0.5, direction="horizontal"),
    dict(type="Flip", flip_ratio=0.5, direction="vertical"),
    dict(type="ColorJitter", brightness=0.3, contrast=0.3, saturation=0, hue=0),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
val_pipeline = [
    decode,
    dict(type="UniformSample", clip_len=8, num_clips=1, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
work_dir = "work_dirs/ceiling_actions/inflated_stage0"
