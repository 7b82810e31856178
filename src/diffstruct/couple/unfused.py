"""Running a model operator by operator, so that a dispatch mode sees what its fused kernels are made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def unfused() -> Iterator[None]:
    """Switch fused kernels off."""
    fast = torch.backends.mha.get_fastpath_enabled()
    onednn = torch._C._get_mkldnn_enabled()
    cudnn = torch.backends.cudnn.enabled
    with ExitStack() as stack:
        stack.callback(lambda: torch.backends.mha.set_fastpath_enabled(fast))
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(lambda: torch._C._set_mkldnn_enabled(onednn))
        torch._C._set_mkldnn_enabled(False)
        stack.callback(lambda: setattr(torch.backends.cudnn, "enabled", cudnn))
        torch.backends.cudnn.enabled = False  # has whole recurrent layers as one kernel
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.enable_grad())  # without gradients torch takes other, fused paths
        yield
