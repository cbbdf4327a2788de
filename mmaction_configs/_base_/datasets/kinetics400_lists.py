# Kinetics-400 in MMAction2's lists, for recognizers that it ships for testing only. The configs
# give the pipelines.
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="VideoDataset",
        ann_file="data/kinetics400/kinetics400_train_list_videos.txt",
        data_prefix=dict(video="data/kinetics400/videos_train"),
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="VideoDataset",
        ann_file="data/kinetics400/kinetics400_val_list_videos.txt",
        data_prefix=dict(video="data/kinetics400/videos_val"),
        test_mode=True,
    ),
)
val_cfg = dict(type="ValLoop")
