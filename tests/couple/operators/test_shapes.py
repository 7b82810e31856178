"""Every rule gives its results the sizes that they have: also of single numbers, with defaults, in place."""

import pytest
import torch
import torch.nn.functional as F
from torch import tensor

from diffstruct.couple.findings import Findings
from diffstruct.couple.trace import trace

X = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
ROWS, COLUMNS = torch.zeros(3, 4, 2, dtype=torch.long), tensor([0, 1])

CALLS = {
    "gather": [
        lambda x: x.sum().gather(0, tensor(0)),
        lambda x: x.sum().gather(0, tensor([0])),
        lambda x: torch.gather(input=x, dim=-1, index=ROWS),
        lambda x: x.sum().scatter(0, tensor(0), 1.0),
        lambda x: x.sum().scatter_add(0, tensor(0), tensor(1.0)),
        lambda x: torch.take_along_dim(x, x.argmax(-1, keepdim=True), -1),
    ],
    "index": [
        lambda x: x.sum().index_select(0, tensor([0])),
        lambda x: x.index_select(-1, COLUMNS),
        lambda x: x.index_select(1, tensor(1)),
        lambda x: x[COLUMNS, :, COLUMNS],
        lambda x: x[..., COLUMNS[None]],
        lambda x: x[x > 0.5],
        lambda x: F.embedding(tensor(1), x[0]),
        lambda x: F.embedding_bag(tensor([[1, 2]]), x[0], mode="max"),
    ],
    "along": [
        lambda x: x.roll(1),
        lambda x: x.sum().roll(1),
        lambda x: torch.roll(x, shifts=(1, 2), dims=(0, -1)),
        lambda x: x.flip([]),
        lambda x: x.flip(-1, 0),
        lambda x: (x + 1).cumsum_(1),
        lambda x: (x + 1).cumprod_(dim=0),
        lambda x: x.sum().cumsum(0),
        lambda x: x.sort(stable=True, dim=0),
        lambda x: x.sum().sort(),
        lambda x: x.sum().softmax(0),
        lambda x: x.logcumsumexp(0),
        lambda x: x.topk(2, dim=1),
        lambda x: x.sum().topk(1),
        lambda x: x.sum().kthvalue(1),
        lambda x: x.kthvalue(2, keepdim=True),
        lambda x: (x + 1).triu_(1),
    ],
    "reductions": [
        lambda x: x.sum().mean(0),
        lambda x: x.mean(dim=(0, -1), keepdim=True),
        lambda x: x.var(False),
        lambda x: x.var(unbiased=True),
        lambda x: torch.std(x, dim=(), correction=0),
        lambda x: torch.var_mean(x, dim=0),
        lambda x: torch.any(x > 0, dim=()),
        lambda x: torch.all(x > 0, dim=[0, 1]),
        lambda x: x.amax(dim=()),
        lambda x: x.max(-1, keepdim=True),
        lambda x: torch.max(x, x + 1),
        lambda x: x.argmax(),
        lambda x: x.median(dim=0),
        lambda x: torch.norm(x, p=1, dim=(0, 1)),
        lambda x: torch.linalg.vector_norm(x, ord=1),
        lambda x: torch.count_nonzero(x, dim=1),
        lambda x: x.sum([]),
    ],
    "views": [
        lambda x: x.sum().transpose(0, -1),
        lambda x: (x + 1).transpose_(-1, 0),
        lambda x: x.sum().unsqueeze(0),
        lambda x: x[:1, :1].squeeze((0, -2)),
        lambda x: x.sum().squeeze(0),
        lambda x: x.squeeze(()),
        lambda x: x.sum().expand(3, 4),
        lambda x: x.sum().repeat(2),
        lambda x: x[:, -3:, ::2],
        lambda x: x[5:],
        lambda x: x[:0].reshape(0, 24),
        lambda x: x.split([0, 6], -1),
        lambda x: x.chunk(4, dim=2),
        lambda x: x.view(torch.int32),
        lambda x: x.sum().view(1, 1),
        lambda x: (x + 1).resize_(2, 2),
        lambda x: (x + 1).set_(torch.rand(5)),
    ],
    "others": [
        lambda x: torch.cat([x, torch.empty(0)], dim=1),
        lambda x: torch.stack([x.sum(), x.mean()]),
        lambda x: F.pad(x, (-1, 2)),
        lambda x: F.pad(x, (1, 1), mode="reflect"),
        lambda x: x[0, 0] @ x[0, 0],
        lambda x: torch.addmv(x[0, :, 0], x[0], x[0, 0]),
        lambda x: torch.baddbmm(x[:, :1, :4], x, x.mT),
        lambda x: F.bilinear(x, x, torch.rand(5, 6, 6), torch.rand(5)),
        lambda x: F.conv1d(x[0], torch.rand(4, 1, 3), groups=4),
        lambda x: F.conv_transpose1d(x, torch.rand(4, 2, 3), groups=2),
        lambda x: F.group_norm(x, 2),
        lambda x: F.layer_norm(x, (4, 6)),
        lambda x: F.grid_sample(x[None], torch.rand(1, 2, 3, 2), align_corners=False),
        lambda x: F.interpolate(x, size=9, mode="linear"),
        lambda x: torch.zeros(3, 4, 6).copy_(x[:1]),
        lambda x: torch.add(x.detach(), 1, out=torch.empty(0)),
    ],
}


def failed_rules(run):
    findings = Findings()
    trace(torch.nn.Identity(), run, (X,), findings)
    return findings.failed_rules


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    "call", [pytest.param(call, id=f"{kind}{i}") for kind in CALLS for i, call in enumerate(CALLS[kind])]
)
def test_no_rule_fails(call, inference):
    def run():
        with torch.inference_mode(inference):  # operators then come before they are taken apart
            return call(X.clone() if inference else X)

    assert failed_rules(run) == {}
