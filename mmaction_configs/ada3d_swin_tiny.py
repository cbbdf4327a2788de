# Ada3D with Video Swin-T, 32 frames: no temporal convolution, so only frames are selected.
# Its trained weights are in MMAction2's model zoo: --cfg-options model.recognizer_checkpoint=...
_base_ = [
    "mmaction::recognition/swin/swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb.py",
    "_base_/schedules/ada3d_zoo.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="checkpoints/swin_tiny.pth",
    clip_shape=(3, 32, 224, 224),
    selector=_base_.ada3d_selector,
    objective=_base_.ada3d_objective,
)
train_cfg = _base_.ada3d_train_cfg
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="Ada3DOptimWrapperConstructor",
    optimizer=_base_.ada3d_transformer_optimizer,
    clip_grad=_base_.ada3d_transformer_clip_grad,
)
param_scheduler = []
custom_hooks = _base_.ada3d_transformer_hooks
val_evaluator = _base_.ada3d_evaluator
test_evaluator = _base_.ada3d_evaluator
default_hooks = dict(checkpoint=dict(save_best="policy/reward", rule="greater"))
work_dir = "work_dirs/ada3d_swin_tiny"
