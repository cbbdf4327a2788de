# I3D-R50 with factorised 3D convolutions and no temporal stride, the paper's recognizer:
# 58.88 G multiply-adds for 8 frames of 256x256.
model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="ResNet3d",
        pretrained=None,
        pretrained2d=True,
        depth=50,
        conv1_kernel=(5, 7, 7),
        conv1_stride_t=1,
        pool1_stride_t=1,
        with_pool2=False,
        inflate=((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0)),
        zero_init_residual=False,
        norm_eval=False,
    ),
    cls_head=dict(
        type="I3DHead",
        num_classes=200,
        in_channels=2048,
        spatial_type="avg",
        dropout_ratio=0.5,
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
