# Ada3D with TPN on SlowOnly-R50, 8 frames; its auxiliary loss stays.
# Its trained weights are in MMAction2's model zoo: --cfg-options model.recognizer_checkpoint=...
_base_ = [
    "mmaction::recognition/tpn/tpn-slowonly_r50_8xb8-8x8x1-150e_kinetics400-rgb.py",
    "_base_/schedules/ada3d_zoo.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="checkpoints/tpn_slowonly_r50.pth",
    clip_shape=(3, 8, 256, 256),
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
work_dir = "work_dirs/ada3d_tpn_slowonly_r50"
