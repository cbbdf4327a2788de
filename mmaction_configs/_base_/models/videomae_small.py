# A small VideoMAE for two CPU cores: 36 patches of 8 x 8 pixels for each pair of frames.
model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="VisionTransformer",
        img_size=48,
        patch_size=8,
        embed_dims=64,
        depth=4,
        num_heads=4,
        num_frames=8,
        norm_cfg=dict(type="LN", eps=1e-6),
    ),
    cls_head=dict(type="TimeSformerHead", num_classes=10, in_channels=64, average_clips="prob"),
    data_preprocessor=dict(
        type="ActionDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape="NCTHW",
    ),
)
