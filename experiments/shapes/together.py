"""Train uniform models on a GPU, many at once: updates as CUDA graphs, each model's on a stream of its own.

So small a model keeps a GPU waiting for the next kernel to be launched. A graph launches those of a whole
update at once, and several streams fill the GPU. What is computed is what `train` computes: weights and
batches are drawn on the CPU, as there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from task import Task
from torch import Tensor, nn
from train import Job, measured

from diffstruct.writing import replace_file

AT_ONCE = 16
"""Models side by side."""

WARM = 3
"""Updates before a graph is captured, in which libraries set themselves up; they are undone."""


class Updates:
    """The updates of one model, each of them the same work on the same tensors.

    Args:
        model: on any device.
        task: its loss, and the learning rate of Adam.
        batches: all that it is trained on, inputs and targets `[updates, ...]` each.
    """

    def __init__(self, model: nn.Module, task: Task, batches: tuple[Tensor, Tensor]) -> None:
        self.model, self.task, self.batches = model, task, batches
        on_gpu = batches[0].is_cuda
        self.optimizer = torch.optim.Adam(model.parameters(), lr=task.rate, capturable=on_gpu)
        self.next = torch.zeros(1, dtype=torch.long, device=batches[0].device)

    def __call__(self) -> None:
        """Make the next update."""
        x, y = (each.index_select(0, self.next)[0] for each in self.batches)
        loss = self.task.loss(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.next.add_(1)

    @torch.no_grad()
    def undo(self, weights: Sequence[Tensor]) -> None:
        """Begin again, from these weights."""
        for parameter, value in zip(self.model.parameters(), weights, strict=True):
            parameter.copy_(value)
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()
        self.next.zero_()

    def captured(self, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        """An update as a graph, which runs on the stream."""
        weights = [parameter.detach().clone() for parameter in self.model.parameters()]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM):
                self()
            self.undo(weights)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self()
        return graph


def train_uniform(jobs: Sequence[Job], out: Path) -> None:
    """Train uniform models on the GPU, and write each run to its file in the folder of results."""
    for _, of_a_seed in groupby(jobs, key=lambda job: (job.seed, job.quick)):
        of_a_seed = [*of_a_seed]
        for first in range(0, len(of_a_seed), AT_ONCE):
            some = of_a_seed[first : first + AT_ONCE]
            models = [job.build().cuda() for job in some]
            begin = time.monotonic()
            train_together(models, some[0].task, some[0].seed)
            seconds = (time.monotonic() - begin) / len(some)
            for job, model in zip(some, models, strict=True):
                record = {**measured(model, job.task, "cuda"), "seconds": seconds, "device": "cuda"}
                (out / job.file).parent.mkdir(parents=True, exist_ok=True)
                replace_file(out / job.file, json.dumps(record).encode() + b"\n")
            print(f"{len(some)} uniform models of seed {some[0].seed}, {seconds:.1f} s each", flush=True)


def train_together(models: Sequence[nn.Module], task: Task, seed: int) -> None:
    """Train models on the GPU side by side, on the same batches.

    Args:
        models: on the GPU.
        task: of all of them.
        seed: of the batches.
    """
    drawn = [*task.batches(torch.Generator().manual_seed(seed))]
    x, y = (torch.stack(each).cuda() for each in zip(*drawn, strict=True))
    streams = [torch.cuda.Stream() for _ in models]
    updates = [Updates(model, task, (x, y)) for model in models]
    graphs = [each.captured(stream) for each, stream in zip(updates, streams, strict=True)]
    for _ in drawn:
        for graph, stream in zip(graphs, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    torch.cuda.synchronize()
