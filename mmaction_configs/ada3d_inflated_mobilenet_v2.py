# Ada3D with a recognizer inflated from torchvision's MobileNetV2, 8 frames, and a small selection
# network: another MobileNetV2 would cost a tenth of it. Without a checkpoint of the recognizer
# (model.recognizer_checkpoint=None) it starts from the ImageNet weights.
_base_ = [
    "_base_/default_runtime.py",
    "_base_/models/inflated_mobilenet_v2.py",
    "_base_/datasets/long_videos.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="work_dirs/inflated_mobilenet_v2_stage0/epoch_24.pth",
    clip_shape=(3, 8, 256, 256),
    selector=dict(
        type="SelectionNetwork",
        backbone=dict(type="SmallConvNet", channels=(8, 16, 32, 64)),
        weights=None,
        input_size=64,
        pretrain="frame",
    ),
    objective=dict(type="Reinforce", gamma=1.0, samples=4),
)
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=40, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = []  # TrainingPhaseHook sets the learning rates
optim_wrapper = dict(
    constructor="Ada3DOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=4e-4, weight_decay=0.02),
    clip_grad=dict(max_norm=10.0),
)
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(name="warmup", epochs=10, recognizer_lr=4e-4, selector_lr=1e-3),
            dict(name="selection", epochs=10, selector_lr=1e-3),
            dict(name="joint", epochs=20, recognizer_lr=2e-4, selector_lr=1e-3, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)  # clips in a step, for --auto-scale-lr
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3, save_best="policy/reward", rule="greater"))
