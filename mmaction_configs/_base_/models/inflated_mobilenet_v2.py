# torchvision's MobileNetV2, its 1x1 expansions inflated to 3x1x1: 5.98 G multiply-adds for 8 frames of
# 256x256. The ImageNet weights are fetched when training starts from them.
model = dict(
    type="Recognizer3D",
    backbone=dict(
        type="InflatedNet",
        net="mobilenet_v2",
        inflate=[r"^features\.(?!1\.)\d+\.conv\.0\.0$"],
        kernel=3,
        init="centre",
        weights="IMAGENET1K_V1",  # or a file: features.* of torchvision's
        norm_eval=True,
    ),
    cls_head=dict(
        type="I3DHead",
        num_classes=200,
        in_channels=1280,
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
