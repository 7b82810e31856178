"""The pictures that the examples end with, drawn from plain numbers, which are kept beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

DIGITS = 5
"""Of the numbers that are kept; more than a picture shows."""


def save(name: str, told: Mapping[str, Any], picture: Path) -> None:
    """Keep what an example has told as JSON, and draw it."""
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.with_suffix(".json").write_text(json.dumps(rounded(told)))
    picture.write_bytes(draw(name, rounded(told)))
    print(f"wrote {picture}")


def rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(each) for each in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def draw(name: str, told: Mapping[str, Any]) -> bytes:
    """The picture of an example, from what it has told; a PNG."""
    picture = BytesIO()
    PICTURES[name](**told).savefig(picture, dpi=90, format="png", metadata={"Software": None})
    return picture.getvalue()


def digits_cnn(channels: Mapping[str, list[int]], models: Mapping[str, tuple[int, float]]) -> Figure:
    figure, (left, right) = two()
    for name, sizes in channels.items():
        left.plot(sizes, label=f"layer {name}")
    left.set(xlabel="training step", ylabel="channels", ylim=(0, None), title="channels while training")
    left.legend()
    for name, (parameters, error) in models.items():
        right.plot(parameters, error, "o", label=name)
    right.set(xlabel="parameters", ylabel="test error, %", xscale="log", ylim=(0, None))
    right.set_title("what came out")
    right.legend(fontsize="small")
    return figure


def house_prices(prices: list[float], predicted: list[float], errors: Mapping[str, float]) -> Figure:
    figure, (left, right) = two()
    left.plot(np.array(prices) / 1000, np.array(predicted) / 1000, ".", markersize=3)
    left.axline((100, 100), slope=1, color="black", linewidth=0.8)
    left.set(xlabel="price, 1,000 dollars", ylabel="predicted")
    left.set_title(f"{len(prices)} houses that it has not seen")
    right.barh([*errors], [*errors.values()])
    right.invert_yaxis()
    right.set(title="error in the logarithm of the price")
    return figure


def series_lstm(units: list[int], days: list[float], demand: list[float], forecast: list[float]) -> Figure:
    figure, (left, right) = two()
    left.plot(units)
    left.set(xlabel="training step", ylabel="units", ylim=(0, None), title="units while training")
    right.plot(days, demand, color="black", label="demand")
    right.plot(days, forecast, label="forecast a day before")
    right.set(xlabel="days", ylabel="standard deviations", title="a week that it has not seen")
    right.legend(fontsize="small")
    return figure


def text_transformer(sizes: Mapping[str, list[int]]) -> Figure:
    return shares(sizes, "widths while training", "training step")


def shrink_bert(sizes: Mapping[str, list[int]]) -> Figure:
    return shares(sizes, "widths of BERT", "step of fine-tuning")


def shares(sizes: Mapping[str, list[int]], title: str, steps: str) -> Figure:
    """Each width in percent of what it was."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, each in sizes.items():
        axes.plot([100 * size / each[0] for size in each], label=f"{name}: {each[-1]}")
    axes.set(xlabel=steps, ylabel="% of its first size", ylim=(0, None), title=title)
    axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def two() -> tuple[Figure, Any]:
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    return figure, figure.subplots(1, 2)


PICTURES = {
    each.__name__: each for each in (digits_cnn, house_prices, series_lstm, text_transformer, shrink_bert)
}
