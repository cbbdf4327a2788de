# 470 clips of 8 classes from a ceiling camera, in four folds by source video. The list files name
# videos relative to `videos/`. Choose with `--cfg-options data_root=... fold=...`.
data_root = "data/ceiling_actions"
fold = 0
decode = dict(type="InMemoryDecordInit", scale=(96, 72))
class_file = "{data_root}/classes.txt"
train_pipeline = [
    decode,
    dict(type="UniformSample", clip_len=8, num_clips=1),
    dict(type="DecordDecode"),
    dict(type="RandomTranspose", prob=0.5),
    dict(type="Resize", scale=(96, 72), keep_ratio=False),
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
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    drop_last=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="VideoDataset",
        ann_file="{data_root}/fold{fold}_train.txt",
        data_prefix=dict(video="{data_root}/videos"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="VideoDataset",
        ann_file="{data_root}/fold{fold}_val.txt",
        data_prefix=dict(video="{data_root}/videos"),
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy"))
test_evaluator = val_evaluator
