"""Profiled time is told by the kind of what was done."""

from types import SimpleNamespace

import pytest

from ada3d_fx.timing import time_profile


@pytest.mark.parametrize(
    "name, kind",
    [
        ("aten::mkldnn_convolution", "convolution"),
        ("mkldnn::_convolution_pointwise_", "convolution"),
        ("aten::cudnn_convolution", "convolution"),
        ("aten::max_pool3d_with_indices", "pooling"),
        ("aten::mean", "other"),
        ("aten::cat", "joining and copying"),
        ("aten::copy_", "joining and copying"),
        ("aten::index_select", "joining and copying"),
        ("aten::native_batch_norm", "batch_norm"),
        ("aten::clamp_min_", "relu"),
        ("aten::relu_", "relu"),
        ("aten::add_", "add"),
        ("aten::addmm", "other"),
        ("aten::mul", "other elementwise"),
        ("aten::multinomial", "other"),
        ("cudaLaunchKernel", "other"),
    ],
)
def test_operations_have_kinds(name, kind):
    assert time_profile.kind_of(name) == kind


def event(name, spent, parent=None):
    return SimpleNamespace(name=name, self_cpu_time_total=spent, cpu_parent=parent)


def test_times_are_summed_by_kind_and_the_selection_networks_apart():
    selecting = event(time_profile.SELECTING, 1e6)
    inner = event("aten::conv2d", 2e6, selecting)
    events = [selecting, inner, event("aten::relu", 3e6, inner), event("aten::conv3d", 8e6)]
    events += [event("aten::conv3d", 1e6), event("aten::relu", 5e6)]
    found = time_profile.by_kind(events, "cpu")
    assert found == {"convolution": 9, "selection network": 6, "relu": 5}
    assert next(iter(found)) == "convolution"


def test_convolutions_and_launches_are_counted_once_each():
    names = ["aten::conv3d", "aten::convolution", "aten::_convolution", "aten::cudnn_convolution"]
    names += ["aten::cudnn_convolution_relu", "aten::cudnn_convolution_add_relu"]
    names += ["mkldnn::_convolution_pointwise", "mkldnn::_convolution_pointwise_"]
    names += ["cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cudaMemcpyAsync"]
    found = time_profile.calls([event(name, 1.0) for name in names])
    assert found == {"convolutions": 5, "launches": 3}


def test_the_text_tells_the_counts_that_are_there():
    row = {"name": "dense", "seconds": 0.5, "kinds": {"relu": 0.5}, "convolutions": 3}
    assert "  dense (0.500 s, 3 convolutions): relu 100" in time_profile.text(
        [{**row, "launches": 0}]
    )
    assert "3 convolutions, 7 launches)" in time_profile.text([{**row, "launches": 7}])
