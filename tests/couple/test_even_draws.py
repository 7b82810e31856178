"""What a model draws at random is no obstacle, if its shape follows."""

import pytest
import torch
from torch import nn

import diffstruct as ds
from diffstruct.couple.even_draws import EvenDraws


def drawn(size):
    with EvenDraws():
        like = torch.randn_like(torch.zeros(size))
        uniform = torch.empty(size).uniform_(2, 3)
        normal = torch.normal(torch.arange(float(size)), 0.1)
        return like, torch.rand(size), uniform, normal, torch.empty(size).exponential_(2.0), torch.randn(size)


def test_draws_do_not_depend_on_their_number():
    few, many = drawn(3), drawn(40)
    for one, other in zip(few, many, strict=True):
        assert torch.equal(one, other[:3])
    assert (few[0] == few[0][0]).all()
    assert 2 <= few[2][0] < 3
    assert few[3][2] - few[3][1] == pytest.approx(1)
    assert few[4][0] > 0
    assert len({float(each[0]) for each in few}) == len(few)


class Autoencoder(nn.Module):
    def __init__(self, draw, latent=4):
        super().__init__()
        self.latent, self.draw = latent, draw
        self.encode, self.mean, self.spread = nn.Linear(6, 10), nn.Linear(10, latent), nn.Linear(10, latent)
        self.decode, self.out = nn.Linear(latent, 12), nn.Linear(12, 6)

    def forward(self, x):
        hidden = torch.relu(self.encode(x))
        mean, spread = self.mean(hidden), self.spread(hidden).exp()
        return self.out(torch.relu(self.decode(self.draw(self, mean, spread))))


DRAWS = {
    "like": lambda model, mean, spread: mean + spread * torch.randn_like(spread),
    "attribute": lambda model, mean, spread: mean + spread * torch.randn(len(mean), model.latent),
    "shape": lambda model, mean, spread: mean + spread * torch.randn(mean.shape),
    "distribution": lambda model, mean, spread: torch.distributions.Normal(mean, spread).rsample(),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_the_latent_of_an_autoencoder_is_learned(draw):
    torch.manual_seed(0)
    model, inputs = Autoencoder(draw), (torch.randn(5, 6),)
    found = ds.find_widths(model, inputs)
    assert {name: width.size for name, width in found.widths.items()} == {
        "encode": 10,
        "mean": 4,
        "decode": 12,
    }
    optimizer = torch.optim.Adam(model.parameters())
    rule = ds.Rule(threshold=0.3, reserve=1, p_add=0.7, p_delete=0.5, max_units=99, redraw_after=2)
    structure = ds.Structure(
        model, optimizer, widths=found, total_steps=20, interval=1, rule=rule, criterion=ds.OutgoingNorm()
    )
    for _ in range(10):
        loss = model(*inputs).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        structure.step()
    assert structure.history.events
    assert structure.finish()(*inputs).isfinite().all()


def test_a_latent_that_is_an_output_stays():
    def draw(model, mean, spread):
        model.known = mean
        return mean + spread * torch.randn_like(spread)

    class Telling(Autoencoder):
        def forward(self, x):
            return super().forward(x), self.known

    torch.manual_seed(0)
    found = ds.find_widths(Telling(draw), (torch.randn(5, 6),))
    assert {*found.widths} == {"encode", "decode"}
    assert any(
        each.size == 4 and each.reason.startswith("is a dimension of the output;") for each in found.refused
    )
