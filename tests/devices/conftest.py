"""Tests that run on every device that there is: the CPU, and a GPU where PyTorch sees one."""

from __future__ import annotations

import pytest
import torch

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=GPU)])
def device(request) -> torch.device:
    """The device to train on."""
    return torch.device(request.param)
