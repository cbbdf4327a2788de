# Ada3D on a trained recognizer of MMAction2's model zoo: what its configs here share. A config takes
# `_base_.ada3d_...` for each of its own keys, since MMEngine lets two bases share no key.
custom_imports = dict(imports=["ada3d_fx.mm"], allow_failed_imports=False)
ada3d_selector = dict(
    type="SelectionNetwork",
    backbone=dict(type="torchvision.mobilenet_v2"),
    weights=None,  # a file of ImageNet weights, features.* of torchvision's MobileNetV2
    input_size=112,
    input_mean=[127.5, 127.5, 127.5],
    input_std=[127.5, 127.5, 127.5],
)
# 0.5 M multiply-adds a frame instead of 80 M, for recognizers that are small themselves
ada3d_small_selector = dict(
    type="SelectionNetwork",
    backbone=dict(type="SmallConvNet", channels=(8, 16, 32, 64)),
    weights=None,
    input_size=64,
    pretrain="frame",
)
ada3d_objective = dict(type="Reinforce", gamma=1.0, samples=4)
ada3d_train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=30, val_interval=5)
ada3d_optimizer = dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4)
ada3d_clip_grad = dict(max_norm=40.0)
ada3d_transformer_optimizer = dict(type="AdamW", lr=1e-4, weight_decay=0.05)
ada3d_transformer_clip_grad = dict(max_norm=1.0)
ada3d_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(name="warmup", epochs=5, recognizer_lr=1e-3, selector_lr=1e-3),
            dict(name="selection", epochs=10, selector_lr=1e-4),
            dict(name="joint", epochs=15, recognizer_lr=1e-3, selector_lr=1e-3, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
ada3d_transformer_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(name="warmup", epochs=5, recognizer_lr=2e-5, selector_lr=1e-4),
            dict(name="selection", epochs=10, selector_lr=1e-4),
            dict(name="joint", epochs=15, recognizer_lr=2e-5, selector_lr=1e-4, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
ada3d_evaluator = [
    dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy")),
    dict(type="PolicyCostMetric"),
]
