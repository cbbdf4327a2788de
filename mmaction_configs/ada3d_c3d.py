# Ada3D with C3D, 16 frames, on UCF101, the one data set that MMAction2 ships it for.
# Its trained weights are in MMAction2's model zoo: --cfg-options model.recognizer_checkpoint=...
_base_ = [
    "mmaction::recognition/c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb.py",
    "_base_/schedules/ada3d_zoo.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="checkpoints/c3d.pth",
    clip_shape=(3, 16, 112, 112),
    selector=_base_.ada3d_selector,
    objective=_base_.ada3d_objective,
)
train_cfg = _base_.ada3d_train_cfg
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    constructor="Ada3DOptimWrapperConstructor",
    optimizer=_base_.ada3d_optimizer,
    clip_grad=_base_.ada3d_clip_grad,
)
param_scheduler = []
custom_hooks = _base_.ada3d_hooks
val_evaluator = _base_.ada3d_evaluator
test_evaluator = _base_.ada3d_evaluator
default_hooks = dict(checkpoint=dict(save_best="policy/reward", rule="greater"))
work_dir = "work_dirs/ada3d_c3d"
