# Ada3D with VideoMAE's ViT-B, 16 frames, which are kept in pairs: its tokens span two frames each.
# MMAction2 ships it for testing only, so the training data are here.
# Its trained weights are in MMAction2's model zoo: --cfg-options model.recognizer_checkpoint=...
_base_ = [
    "mmaction::recognition/videomae/vit-base-p16_videomae-k400-pre_16x4x1_kinetics-400.py",
    "_base_/datasets/kinetics400_16x4.py",
    "_base_/schedules/ada3d_zoo.py",
]
model = dict(
    _delete_=True,
    type="Ada3DRecognizer",
    recognizer=_base_.model,
    recognizer_checkpoint="checkpoints/videomae_base.pth",
    clip_shape=(3, 16, 224, 224),
    selector=_base_.ada3d_selector,
    objective=_base_.ada3d_objective,
)
train_cfg = _base_.ada3d_train_cfg
optim_wrapper = dict(
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
work_dir = "work_dirs/ada3d_videomae_base"
