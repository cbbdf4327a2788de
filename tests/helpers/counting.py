"""fvcore itself, to compare counts with."""

import torch
from fvcore.nn import FlopCountAnalysis

from ada3d_fx.cost.count import HANDLES


def fvcores(module, inputs):
    """fvcore's counts by module and by operator, and what it has no handle for; with arithmetic."""
    analysis = FlopCountAnalysis(module.eval(), inputs).set_op_handle(**HANDLES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that fvcore cannot look into
    try:
        with torch.no_grad():
            return analysis.by_module(), analysis.by_operator(), analysis.unsupported_ops()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
