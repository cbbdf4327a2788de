"""A plain network in inference gives what it gives anyway, however it has changed."""

import copy
import gc
import weakref

import pytest
import torch
from models import CALLS, DEVICES
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from ada3d_fx import inference
from ada3d_fx.inference import infer
from ada3d_fx.learn.backbones import SmallConvNet


def network(kind=mobilenet_v2, dtype=torch.float64):
    torch.manual_seed(0)
    model = kind().to(dtype).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of these images: else activations vanish
    with torch.no_grad():
        model(IMAGES)
    return model.eval()


IMAGES = torch.randn(11, 3, 32, 40, generator=torch.Generator().manual_seed(0)).double()


def runs_folded(model, images=IMAGES):
    """Whether nobody calls the network itself."""
    calls = []
    plain = type(model).forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(model), "forward", lambda *args: calls.append(1) or plain(*args))
        with torch.no_grad():
            infer(model, images)
    return not calls


def same(model, images=IMAGES, tolerance=1e-9):
    for _ in range(CALLS[images.device.type]):
        with torch.no_grad():
            torch.testing.assert_close(
                infer(model, images), model(images), rtol=tolerance, atol=tolerance
            )


@pytest.mark.parametrize("kind", [mobilenet_v2, resnet18, SmallConvNet])
def test_it_is_what_the_network_gives(kind):
    model = network(kind)
    before = IMAGES.clone()
    same(model)
    assert runs_folded(model) and torch.equal(IMAGES, before)
    small = copy.deepcopy(model).float()
    with torch.inference_mode():
        wanted = model(IMAGES)
        off = [float((m(small) - wanted).abs().max()) for m in (fast, plain)]
    assert off[0] <= 3 * off[1]  # of what float32 itself costs


def fast(model):
    return infer(model, IMAGES.float())


def plain(model):
    return model(IMAGES.float())


def double(module):
    module.weight.data.mul_(2)


def move_statistics(module):
    module.running_mean.data.add_(0.5)


CHANGES = {
    "a weight": lambda m: double(m.features[3].conv[0][0]),
    "statistics": lambda m: move_statistics(m.features[3].conv[0][1]),
    "eps": lambda m: setattr(m.features[3].conv[0][1], "eps", 0.3),
    "another convolution": lambda m: m.features[0].__setitem__(
        0, copy.deepcopy(network()).features[0][0].requires_grad_(False)
    ),
    "another activation": lambda m: m.features[0].__setitem__(2, nn.Tanh()),
    "other bounds": lambda m: setattr(m.features[0][2], "max_val", 1.0),
    "one block less": lambda m: m.features.__delitem__(5),
    "a block more": lambda m: m.features.append(nn.Sigmoid()),
    "a flag": lambda m: setattr(m.features[3], "use_res_connect", False),
    "another head": lambda m: setattr(m, "classifier", nn.Linear(1280, 3).double()),
    "dropout that trains": lambda m: m.classifier[0].train(),
    "a norm that trains": lambda m: m.features[2].train(),
    "a hook": lambda m: m.features[4].register_forward_hook(lambda mod, args, out: out * 2),
    "loaded": lambda m: m.load_state_dict({k: v * 0.9 for k, v in m.state_dict().items()}),
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CHANGES)
def test_no_change_is_missed(name, device):
    model, images = network().to(device), IMAGES.to(device)
    same(model, images)
    with torch.no_grad():
        before = infer(model, images)
        CHANGES[name](model)
    model.to(device)
    if "train" in name:  # not the same twice, where it draws
        assert not runs_folded(model, images)
        return
    same(model, images)
    if name != "another convolution":
        with torch.no_grad():
            after = infer(model, images)
        assert after.shape != before.shape or not torch.allclose(after, before)


def test_where_it_is_not_for():
    model = network()
    assert infer(model, IMAGES).requires_grad
    assert not runs_folded(model, IMAGES[:0])
    own = type("Own", (nn.Module,), {"forward": lambda self, x: x.flatten(1)})()
    assert not runs_folded(own)
    same(own)


def test_a_network_that_nobody_holds_is_forgotten():
    model = network(SmallConvNet)
    same(model)
    held, before = weakref.ref(model), len(inference._made)
    del model
    gc.collect()
    assert held() is None and len(inference._made) < before


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(32, 40), (16, 16)])  # the latter ends in images of one pixel
@pytest.mark.parametrize("kind", [mobilenet_v2, resnet18, lambda: SmallConvNet((4, 6))])
def test_gradients_are_those_of_images_as_they_are(kind, size, training):
    model = network(kind).train(training)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    images = torch.randn(
        6, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    seen = []
    plain, watched = copy.deepcopy(model), copy.deepcopy(model)
    first = next(m for m in watched.modules() if isinstance(m, nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    given = [images.clone().requires_grad_() for _ in range(2)]
    results = [plain(given[0]), infer(watched, given[1])]
    for result in results:
        (result * torch.linspace(-1, 1, result.numel()).view_as(result)).sum().backward()
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)
    pairs = list(zip([given[0], *plain.parameters()], [given[1], *watched.parameters()]))
    for one, other in pairs:  # of the largest: what sums to nothing is left with its rounding
        bound = 1e-9 * max(1.0, float(one.grad.abs().max()))
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=bound)
    for name, one in plain.named_buffers():
        torch.testing.assert_close(watched.get_buffer(name), one, rtol=1e-9, atol=1e-9)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_networks_of_others_get_their_images_as_they_are():
    class Flat(nn.Module):
        def forward(self, images):
            return images.view(len(images), -1) * self.weight

    model = Flat()
    model.weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    assert infer(model, IMAGES).shape == (11, 3 * 32 * 40)
