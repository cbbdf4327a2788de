# Stage 0: the recognizer inflated from torchvision's MobileNetV2 alone, from its ImageNet weights.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/inflated_mobilenet_v2.py",
    "_base_/datasets/long_videos.py",
    "_base_/schedules/inflated_stage0.py",
]
train_cfg = dict(val_interval=4)
val_evaluator = [dict(type="AccMetric", metric_list=("top_k_accuracy", "mean_class_accuracy"))]
test_evaluator = val_evaluator
