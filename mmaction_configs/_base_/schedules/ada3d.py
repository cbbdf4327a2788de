# The paper's schedule (sec. 4.1) on 8 GPUs with 8 clips each: 40 epochs of the selection network
# alone, then 60 epochs of both. There the first of the two phases has batches of 256.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=100, val_interval=5)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
param_scheduler = []  # TrainingPhaseHook sets the learning rates
optim_wrapper = dict(
    constructor="Ada3DOptimWrapperConstructor",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=40.0),
)
custom_hooks = [
    dict(
        type="TrainingPhaseHook",
        phases=[
            dict(name="selection", epochs=40, selector_lr=1e-4),
            dict(name="joint", epochs=60, recognizer_lr=0.01, selector_lr=0.01, schedule="cosine"),
        ],
    ),
    dict(type="PolicyLogHook"),
]
auto_scale_lr = dict(enable=False, base_batch_size=64)  # clips in a step, for --auto-scale-lr
