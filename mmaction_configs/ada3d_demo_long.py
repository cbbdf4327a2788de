# Long videos for tools/select_clips.py: six clips each, of which some show nothing. Generate with
# `tools/generate_clips.py --out data/generated_videos --segments 6 --num-train 600 --num-val 300`.
_base_ = ["ada3d_demo.py"]
data_root = "data/generated_videos"
test_pipeline = [
    dict(type="InMemoryDecordInit"),
    dict(type="SampleFrames", clip_len=8, frame_interval=2, num_clips=6, test_mode=True),
    dict(type="DecordDecode"),
    dict(type="FormatShape", input_format="NCTHW"),
    dict(type="PackActionInputs"),
]
test_dataloader = dict(batch_size=10, dataset=dict(pipeline=test_pipeline))
work_dir = "work_dirs/demo_long"
