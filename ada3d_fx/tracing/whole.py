"""Which modules the tracer keeps whole: the table, each row with its reason."""

from __future__ import annotations

from torch import nn

# Modules whose forward is a torch.nn one that we know, or only guards it against empty inputs. All
# others outside torch.nn are traced through. Defining module -> why it is kept whole.
WHOLE_PACKAGES = {
    "torch.nn.": "torch.nn modules are the vocabulary of the rules in rules.py",
    "mmcv.cnn.bricks.wrappers": "torch.nn modules with a guard for empty inputs under torch < 1.5",
    "mmcv.cnn.bricks.activation": "element-wise activations",
}

_PACKAGES = tuple(WHOLE_PACKAGES)


def is_known(module: nn.Module) -> bool:
    """Tell whether ``module`` computes what its torch.nn class does.

    A subclass of BatchNorm3d that only checks its input is a BatchNorm3d; a Conv3d that
    standardises its weights is no Conv3d.
    """
    return is_known_class(type(module))


def is_known_class(kind: type[nn.Module]) -> bool:
    """Tell whether modules of a class compute what its torch.nn class does."""
    own = [kind.forward, getattr(kind, "_conv_forward", None)]
    return all(f"{f.__module__}.".startswith(_PACKAGES) for f in own if f is not None)
