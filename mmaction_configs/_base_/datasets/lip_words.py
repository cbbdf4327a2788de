# 1,500 clips of ten spoken words by 15 people, in five folds by person. The list files name videos
# relative to `videos/`. Choose with `--cfg-options data_root=... fold=...`.
data_root = "data/lip_words"
fold = 0
size = (64, 44)
decode = dict(type="InMemoryDecordInit", scale=size)
class_file = "{data_root}/classes.txt"
train_pipeline = [
    decode,
    dict(type="UniformSample", clip_len=16, num_clips=1),
    dict(type="DecordDecode"),
    dict(type="RandomShift", pixels=(6, 5)),
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
train_dataloader = dict(
    batch_size=32,
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
    batch_size=50,
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
