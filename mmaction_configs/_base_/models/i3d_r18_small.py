# A small I3D for two CPU cores: every block inflated, no temporal stride.
model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="ResNet3d",
        pretrained=None,
        pretrained2d=False,
        depth=18,
        base_channels=8,
        conv1_kernel=(3, 5, 5),
        conv1_stride_t=1,
        pool1_stride_t=1,
        with_pool2=False,
        inflate=(1, 1, 1, 1),
        norm_eval=False,
        zero_init_residual=False,
    ),
    cls_head=dict(
        type="I3DHead",
        num_classes=10,
        in_channels=64,
        spatial_type="avg",
        dropout_ratio=0.0,
        init_std=0.01,
        average_clips="prob",
    ),
    data_preprocessor=dict(
        type="ActionDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape="NCTHW",
    ),
)
