# Stage 0: the recognizer inflated from torchvision's ResNet-50 alone, from its ImageNet weights.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/inflated_resnet50.py",
    "_base_/datasets/long_videos.py",
]
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=20, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=40.0),
)
param_scheduler = [
    dict(type="CosineAnnealingLR", T_max=20, by_epoch=True, convert_to_iter_based=True)
]
val_evaluator = [dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy"))]
test_evaluator = val_evaluator
