"""Every way in which torch lets a user change a module: the same change on any root, by path."""

import itertools

import torch
from torch import nn

# An edit takes a root and a number that chooses what and how; it is done to the adaptive network and to
# its plain mirror alike. It returns whether there was anything to change.


def _parameter(root, choice):
    """(owner, name, parameter): one of the root's, not one that is computed."""
    every = [
        (root.get_submodule(path.rpartition(".")[0]), path.rpartition(".")[2], value)
        for path, value in root.named_parameters()
    ]
    return every[choice % len(every)]


def _random_like(value, choice):
    generator = torch.Generator().manual_seed(choice)
    return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype) * 0.3


def _modules(root, kinds):
    return [(path, m) for path, m in root.named_modules() if path and isinstance(m, kinds)]


def _replace(root, path, module):
    """Under all the names that the old one has."""
    old = root.get_submodule(path)
    for other, found in list(root.named_modules(remove_duplicate=False)):
        if found is old:
            parent, _, name = other.rpartition(".")
            setattr(root.get_submodule(parent), name, module)


def mul_(root, choice):
    with torch.no_grad():
        _parameter(root, choice)[2].mul_(1.2)


def data_mul_(root, choice):
    _parameter(root, choice)[2].data.mul_(1.2)


def data_copy_(root, choice):
    parameter = _parameter(root, choice)[2]
    parameter.data.copy_(_random_like(parameter, choice))


def data_assign(root, choice):
    parameter = _parameter(root, choice)[2]
    parameter.data = _random_like(parameter, choice)


def init_data(root, choice):
    parameter = _parameter(root, choice)[2]
    nn.init.constant_(parameter.data, 0.1)  # numbers drawn in place would follow the memory format
    parameter.data.add_(_random_like(parameter, choice))


def numpy_view(root, choice):
    _parameter(root, choice)[2].detach().numpy()[...] *= 0.9


def foreach(root, choice):
    with torch.no_grad():
        torch._foreach_mul_([p for p in root.parameters() if p.dtype == torch.float64], 1.02)


def assign_parameter(root, choice):
    owner, name, parameter = _parameter(root, choice)
    if "parametrizations" in repr(type(owner)):
        return
    setattr(owner, name, nn.Parameter(_random_like(parameter, choice), parameter.requires_grad))


def vector(root, choice):
    values = nn.utils.parameters_to_vector(p.contiguous() for p in root.parameters()) * 0.97
    nn.utils.vector_to_parameters(values.detach(), root.parameters())


def tie(root, choice):
    owners = [
        m for _, m in _modules(root, (nn.Conv3d, nn.Linear)) if not hasattr(m, "parametrizations")
    ]
    pairs = [
        (a, b) for a, b in itertools.permutations(owners, 2) if a.weight.shape == b.weight.shape
    ]
    if pairs:
        one, other = pairs[choice % len(pairs)]
        one.weight = other.weight


def load(root, choice):
    state = {k: v * 0.9 if v.is_floating_point() else v for k, v in root.state_dict().items()}
    root.load_state_dict(state)


def load_assign(root, choice):
    state = {k: v * 0.9 if v.is_floating_point() else v + 1 for k, v in root.state_dict().items()}
    root.load_state_dict(state, assign=True)


def requires_grad(root, choice):
    parameter = _parameter(root, choice)[2]
    parameter.requires_grad_(not parameter.requires_grad)


def freeze_all_but(root, choice):
    kept = _parameter(root, choice)[2]
    root.requires_grad_(False)
    kept.requires_grad_(True)


def unfreeze(root, choice):
    root.requires_grad_(True)


_NORMS = nn.modules.batchnorm._BatchNorm


def _called(module):
    """Programs call it; its code is not traced through, where numbers are read once."""
    return type(module).forward.__module__ != "random_blocks"


def eps(root, choice):
    for _, module in _modules(root, (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)):
        if _called(module):
            module.eps = 0.01 * (1 + choice % 5)


def momentum(root, choice):
    for _, module in _modules(root, _NORMS):
        if _called(module):
            module.momentum = 0.3


def statistics_data(root, choice):
    for _, module in _modules(root, _NORMS):
        if module.running_mean is not None:
            module.running_mean.data.add_(0.2)
            module.running_var.data.mul_(1.3)


def statistics_numpy(root, choice):
    for _, module in _modules(root, _NORMS):
        if module.running_var is not None:
            module.running_var.numpy()[...] *= 0.8


def assign_statistics(root, choice):
    for _, module in _modules(root, _NORMS):
        if module.running_var is not None:
            module.running_var = torch.ones_like(module.running_var) * 1.5


def reset_statistics(root, choice):
    for _, module in _modules(root, _NORMS):
        module.reset_running_stats()


def another_norm(root, choice):
    norms = [(path, m) for path, m in _modules(root, nn.BatchNorm3d) if type(m) is nn.BatchNorm3d]
    if norms:
        path, old = norms[choice % len(norms)]
        made = nn.BatchNorm3d(old.num_features, eps=0.02, dtype=torch.float64)
        with torch.no_grad():
            made.weight.fill_(1.3)
        _replace(root, path, made.train(old.training))


def another_linear(root, choice):
    path, old = _modules(root, nn.Linear)[-1]
    made = nn.Linear(old.in_features, old.out_features, dtype=torch.float64)
    with torch.no_grad():
        made.weight.copy_(_random_like(made.weight, choice))
        made.bias.zero_()
    _replace(root, path, made.train(old.training))


def another_activation(root, choice):
    acts = [path for path, m in _modules(root, (nn.ReLU, nn.Tanh, nn.Sigmoid))]
    if acts:
        path = acts[choice % len(acts)]
        in_place = getattr(root.get_submodule(path), "inplace", False)  # or it is refused
        made = (nn.Hardswish(in_place), nn.SiLU(in_place)) if in_place else (nn.Tanh(), nn.SiLU())
        _replace(root, path, made[choice % 2])


def without_norm(root, choice):
    """As fusing tools do: an Identity in the place of a BatchNorm."""
    norms = [path for path, m in _modules(root, nn.BatchNorm3d) if type(m) is nn.BatchNorm3d]
    if norms:
        _replace(root, norms[choice % len(norms)], nn.Identity())


def synchronised(root, choice):
    """As MMEngine does for several processes, and undoes for one."""
    norms = [(path, m) for path, m in _modules(root, nn.BatchNorm3d) if type(m) is nn.BatchNorm3d]
    for path, module in norms:
        if not module.training:
            _replace(root, path, nn.SyncBatchNorm.convert_sync_batchnorm(module))


def new_buffer(root, choice):
    module = [m for _, m in _modules(root, nn.Conv3d)] or [m for _, m in _modules(root, nn.Linear)]
    module[choice % len(module)].register_buffer(f"note_{choice % 3}", torch.ones(2).double())


def new_attribute(root, choice):
    for _, module in _modules(root, nn.Conv3d):
        module.note = "a user's"


def dropout_rate(root, choice):
    for _, module in _modules(root, (nn.Dropout, nn.Dropout3d)):
        module.p = 0.0


def scale_output(module, inputs, output):
    return output * 0.9


def shift_input(module, inputs):
    return (inputs[0] + 0.1, *inputs[1:])


def _watchable(root):
    kinds = (nn.Conv3d, nn.BatchNorm3d, nn.Linear, nn.ReLU)
    return [m for _, m in _modules(root, kinds) if _called(m)]


def forward_hook(root, choice):
    modules = _watchable(root)
    modules[choice % len(modules)].register_forward_hook(scale_output)


def pre_hook(root, choice):
    modules = _watchable(root)
    modules[choice % len(modules)].register_forward_pre_hook(shift_input)


def remove_hooks(root, choice):
    for module in root.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()


def swap_tensors(root, choice):
    parameter = _parameter(root, choice)[2]
    other = nn.Parameter(_random_like(parameter, choice), parameter.requires_grad)
    if len(root.state_dict(keep_vars=True)) and not parameter.grad_fn:
        try:
            torch.utils.swap_tensors(parameter, other)
        except RuntimeError:  # somebody holds a weak reference to it
            parameter.data.copy_(other.data)


EDITS = {
    f.__name__: f
    for f in (
        *(mul_, data_mul_, data_copy_, data_assign, init_data, numpy_view, foreach, assign_parameter),
        *(vector, tie, load, load_assign, requires_grad, freeze_all_but, unfreeze, eps, momentum),
        *(statistics_data, statistics_numpy, assign_statistics, reset_statistics, another_norm),
        *(another_linear, another_activation, without_norm, synchronised, new_buffer, new_attribute),
        *(dropout_rate, forward_hook, pre_hook, remove_hooks, swap_tensors),
    )
}  # fmt: skip
