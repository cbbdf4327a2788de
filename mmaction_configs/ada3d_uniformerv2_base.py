# Ada3D with UniFormerV2-B, 8 frames; gates on its depthwise convolutions, each frame may be dropped.
# Its trained weights are in MMAction2's model zoo: --cfg-options model.recognizer_checkpoint=...
_base_ = [
    "mmaction::recognition/uniformerv2/uniformerv2-base-p16-res224_clip_8xb32-u8_kinetics400-rgb.py",
    "_base_/schedules/ada3d_zoo.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="checkpoints/uniformerv2_base.pth",
    clip_shape=(3, 8, 224, 224),
    selector=_base_.ada3d_small_selector,
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
work_dir = "work_dirs/ada3d_uniformerv2_base"
