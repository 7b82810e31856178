"""Structure: ties a criterion, a rule and surgery to a model and its optimizer."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from copy import copy as shallow_copy
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from diffstruct.couple import FoundWidths
from diffstruct.criteria import Budget, Criterion, TaylorImportance
from diffstruct.distributed import Processes, unwrapped
from diffstruct.errors import StructureError, StructureWarning
from diffstruct.history import Event, History
from diffstruct.interrupts import held
from diffstruct.report import Record
from diffstruct.report.page import write
from diffstruct.rule import Rule, RuleState
from diffstruct.structure.candidates import learnable, shardable, widths_to_learn
from diffstruct.structure.deciding import DecidingStructure
from diffstruct.structure.deepening import Growth
from diffstruct.structure.finish import units_at_the_end
from diffstruct.structure.finite import Guard, Nonfinite
from diffstruct.structure.hidden_state import carry_state
from diffstruct.structure.load_hooks import watch_loads
from diffstruct.structure.loading import load_state
from diffstruct.structure.losses import Losses
from diffstruct.structure.operation import operate_on
from diffstruct.structure.recording import record_of
from diffstruct.structure.remarks import remarks_at_the_end
from diffstruct.structure.retreat import at_risk, remember, remember_modules
from diffstruct.structure.run import multiples, optimizers_of, training_run
from diffstruct.structure.sampling import sample_of
from diffstruct.structure.start import start_depths, start_of
from diffstruct.structure.state import state_of
from diffstruct.structure.table import table
from diffstruct.structure.widening import widening
from diffstruct.surgery import Change, copy_of
from diffstruct.width import Width
from diffstruct.width.patterns import by_name


class Structure(DecidingStructure):
    """Learn the widths of `model` while it trains.

    Call `step` after each step of the optimizer: it lets the criterion act, asks the rule, and, if anything
    changes, carries that out on parameters, gradients and optimizer state. Tensor objects stay the same
    ones, so nothing has to be registered anew.

    Args:
        model: any module, also a compiled one, or one in a `DistributedDataParallel`, with `example_inputs`;
            without, one with layers of `diffstruct.nn` that have been told what they feed.
        optimizer: any of `torch.optim` but LBFGS and SparseAdam; or several, where the parameters are
            divided among them; also as `Accelerator.prepare` returns them.
        total_steps: steps in which the structure is learned, most often those of the whole run: the times of
            rule and criterion are fractions of it. After that, sizes stay as they are.
        example_inputs: the model's positional arguments, as a tuple, or its keyword arguments, as a dict,
            such as it is trained on. The model runs on them a few times, and is left as it was.
        widths: what `find_widths` found in this model, in the place of `example_inputs`.
        criterion: what units are judged by, and what they cost; `TaylorImportance()` unless given.
        rule: when units are added and removed; one rule, or rules by patterns of the widths' names. What it
            leaves open, the criterion fills.
        start: units that each width starts from; None: the sizes that the model came with. From fewer,
            `TaylorImportance` grows them back to these after one step; by patterns where widths differ.
        include: patterns of the names of widths to learn; the others keep their sizes.
        exclude: patterns of names to leave out of these.
        tie: patterns of widths that are to stay equally large, as one width of the pattern's name.
        multiple_of: sizes are multiples of this, as tensor cores like them; by patterns where widths differ.
        interval: steps between two decisions, over which the rule's chances add up; None: the criterion's.
        seed: of the generator that the rule and the new units draw from.
        budget: what the finished model may cost, in parameters, multiply-adds or both.
        depth: patterns of the names of containers whose residual blocks come and go, as `find_depths` lists
            them; those of `ds.nn.Residual` do in any case. A depth takes part in `start` and `rule` by its
            name; it starts from the blocks that it came with, and does not grow beyond these unless a rule
            with `max_units` lets it.
        independent: True where other processes of the process group train models of their own, which are
            none of this structure's business.
        nonfinite: what becomes of a step with a gradient that is infinite or not a number: `"raise"` raises a
            `DivergenceError` before the optimizer has touched anything, `"skip"` leaves the step out, and
            `"ignore"` does not look, so that only decisions raise.

    Raises:
        StructureError: the model has no width that could be learned, or does not run on the example inputs,
            or an optimizer cannot follow. Model and optimizers are as they were then.
        ConfigurationError: a parameter cannot work; likewise.

    Example:
        >>> import torch
        >>> import diffstruct as ds
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> x = torch.ones(16, 3)
        >>> structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=100)
        >>> for _ in range(100):
        ...     optimizer.zero_grad()
        ...     (model(x) - 1).square().mean().backward()
        ...     optimizer.step()
        ...     events = structure.step()
        >>> plain = structure.finish()
    """

    loads_first = True
    """Says to `checkpoint.load` that model and optimizers get their sizes with the structure's state."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        total_steps: int,
        example_inputs: Sequence[Any] | Mapping[str, Any] | None = None,
        widths: FoundWidths | None = None,
        criterion: Criterion | None = None,
        rule: Rule | Mapping[str, Rule] | None = None,
        start: int | Mapping[str, int | None] | None = None,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
        tie: Sequence[str] = (),
        multiple_of: int | Mapping[str, int] = 1,
        interval: int | None = None,
        seed: int = 0,
        budget: Budget | None = None,
        depth: Sequence[str] = (),
        independent: bool = False,
        nonfinite: Nonfinite = "raise",
    ) -> None:
        self.model, called = unwrapped(model)
        processes = Processes(self.model, independent)
        self.criterion: Criterion = shallow_copy(criterion or TaylorImportance())
        if processes.sharding is not None:
            shardable(self.model, self.criterion)
        with held(), processes.following(), ExitStack() as undo:  # what to do if anything fails
            processes.changing()
            self._found = widths_to_learn(self.model, example_inputs, widths, include, exclude, tie, depth)
            optimizers = optimizers_of(optimizer)
            undo.callback(start_depths(self._found, start, optimizers))
            self.multiple_of = multiples(multiple_of, self._found.widths)
            self.guard = Guard(self.model, optimizers, nonfinite)
            run = called, optimizer, total_steps, self._found, self.criterion, rule, interval, seed, budget
            self.training = training_run(*run, self.multiple_of, processes)
            sizes = by_name(start, self._found.widths, None, "start")
            learnable(self._found, self.criterion, self.training)
            with processes.plain() if any(sizes.values()) else nullcontext():
                keep = start_of(self._found, sizes, self.training.rules, self.multiple_of)
            self.widths: dict[str, Width] = {**self.criterion.attach(self._found.widths, self.training)}
            undo.callback(self.criterion.detach)
            widened = keep if self.criterion.widens else ()
            self._widening = widening(self.widths, widened, self.training.rules, self.multiple_of)
            changes = {name: Change(self.widths[name], units, 0) for name, units in keep.items()}
            undo.callback(operate_on(self.model, changes, {}, optimizers, processes=processes))
            self.criterion.resize(changes, 0)
            self.history = History.of_decisions(self.training.total_steps // self.training.interval)
            self._losses = Losses()
            self.steps = 0  # made so far
            self.states = {name: RuleState.initial(width.size) for name, width in self.widths.items()}
            self._spare = {name: np.zeros(width.size, np.bool_) for name, width in self.widths.items()}
            self._growth = Growth(self.training, self.widths)
            self._last: dict[str, Change] = {}
            self._finished = False
            self._loads = 0
            self._record_next()
            self._attach_to(self.training.optimizers)
            undo.pop_all()

    def _attach_to(self, optimizers: Sequence[Optimizer]) -> None:
        super()._attach_to(optimizers)
        self._handles = [*self._handles, *watch_loads(self)]

    def follow(self, copy: nn.Module) -> None:
        """Keep a copy of the model, such as `torch.optim.swa_utils.AveragedModel(model)`, at the same sizes.

        Raises:
            StructureError: it is no copy of the model, of its sizes now.
        """
        if self.training.processes.sharding is not None:
            raise StructureError(
                "a copy cannot follow a model that fully_shard has sharded: PyTorch copies no such module"
            )
        self.training.copies.append(copy_of(self.model, copy, self.widths.values()))

    def before_step(self, optimizer: Optimizer, closure: bool = False) -> None:
        """Let the criterion act on the gradients; the optimizer's own hook calls this before each step."""
        if closure:  # gradients are there once it has run
            if self.criterion.acts_on_gradients:
                raise StructureError(
                    "a closure undoes the price on gradients: step without, or price otherwise"
                )
            return
        found_inf: Tensor | None = getattr(optimizer, "found_inf", None)
        if found_inf is not None:  # of a GradScaler, by which the optimizer leaves steps out by itself
            if self.steps + 1 >= self._due and found_inf.item():
                return
        elif not self.guard.passes(self.steps + 1, optimizer):
            return
        if self.steps < self.training.total_steps:
            self.criterion.before_step(optimizer)

    def guarded(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure that a step of `optimizer` is given in the place of the user's."""

        def whole() -> Any:
            loss = closure()
            self.before_step(optimizer)
            return loss

        return whole

    def step(self, loss: Tensor | float | None = None) -> tuple[Event, ...]:
        """Let the criterion act, decide, and change the structure; call it after each step of the optimizer.

        Args:
            loss: of the step, if it is to be in the history: at each decision the mean over the last 32 steps
                and all processes. A tensor with one number, which is read at the decision alone, or a number.

        Returns:
            One event for each width that changed; none at most steps.

        Raises:
            DivergenceError: the importance of a unit is not finite; nothing has changed then.
            StructureError: the structure is finished.
            ConfigurationError: the loss is not one number.
        """
        if loss is not None:
            self._losses.add(loss)
        if self.steps + 1 < self._due:
            self.steps, self._last, self._loads = self.steps + 1, {}, 0
            return ()
        if self._finished:
            raise StructureError("the structure is finished: train on without step(), or make a new one")
        self._join()
        self._last, self._loads = {}, 0
        widens = self._widening is not None and self.steps < self.training.total_steps
        if not (widens or self.training.decides(self.steps + 1)):
            self.steps += 1
            self._record_next()
            return ()
        with self._all_or_nothing() as undo:
            events = self._widen(undo) if widens else self._decide(undo)
            self._record_next()
            self._renew_guard(events, undo)
        if not widens:
            self._losses.clear()
        return events

    def finish(self) -> nn.Module:
        """Remove the reserve, and all that is ours; return the plain model.

        Of each width the units above the threshold stay, one at least, and `model.config` says how many if
        the model's class is built from it. The optimizer goes on working; `step` does not. The statistics of
        a `BatchNorm` follow by one batch; `torch.optim.swa_utils.update_bn(loader, model)` takes them anew.

        Raises:
            StructureError: a `ds.nn.Multiplier` cannot be folded into its readers; nothing has changed then.
        """
        if self._finished:
            raise StructureError("the structure is finished already: the model is plain")
        self._join()
        copies = [copy.modules[self.model] for copy in self.training.copies]
        with self._all_or_nothing() as undo:
            remarks = [
                *remarks_at_the_end(self.steps, self.training, self.widths),
                *self.guard.remarks(self.steps),
            ]
            models = self.model, *copies
            undo.callback(remember(*(getattr(model, "config", None) for model in models)))
            undo.callback(remember(*at_risk(self.model, [*self.widths.values()], self.training.copies)))
            undo.callback(remember_modules(models, self.training.optimizers))
            self.criterion.conclude()
            self._measure(self.steps)
            self.history.end(sample_of(self, self.steps))
            keep = units_at_the_end(self.widths, self.criterion, self.multiple_of)
            plain, more = self._end(keep, undo)
        for remark in (*remarks, *more):
            warnings.warn(remark, StructureWarning, stacklevel=2)
        return plain

    def state_dict(self) -> dict[str, Any]:
        """All that the run depends on beside model and optimizers, in dicts and lists.

        Ask for it after `step`. Save it together with the state dicts of the model and the optimizers, of
        which it says the sizes; `torch.load(..., weights_only=True)` reads it. Its tensors are copies. All
        processes of a model that is sharded have to ask at the same time, and any one's can be saved.

        Returns:
            Sizes and blocks, what rule and criterion remember, the generator, the history; and the inputs of
            the last batch that was recorded, on which `finish` measures, if these are plain tensors.
        """
        return state_of(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state dict: model, optimizers and copies get its sizes, and so do their gradients.

        The structure must have been made with the same arguments, of a model and optimizers that were made
        alike. Load those of the model and the optimizers as well; the model's may be loaded before, for a
        model that is watched takes on the sizes of what is loaded into it. Rules come with the state dict, as
        learning rates do with an optimizer's. Of a model that is sharded, load the structure's first, the
        same one on all processes.

        Raises:
            StructureError: it is damaged, or of another model or run; nothing has changed then.

        Example:
            >>> import torch
            >>> import diffstruct as ds
            >>> def make():
            ...     layers = torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
            ...     model = torch.nn.Sequential(*layers)
            ...     optimizer = torch.optim.Adam(model.parameters())
            ...     inputs = (torch.ones(16, 3),)
            ...     structure = ds.Structure(model, optimizer, example_inputs=inputs, total_steps=100)
            ...     return model, optimizer, structure
            >>> run = make()
            >>> saved = [each.state_dict() for each in run]
            >>> for each, state in zip(make(), saved):
            ...     result = each.load_state_dict(state)
        """
        with held():
            self.guard.forget()  # buffers are about to be others
            load_state(self, state_dict)

    def carry(self, state: Any, width: str | None = None) -> Any:
        """A hidden state after what the last `step` changed: surviving units bit-equal, new units zero.

        Args:
            state: a tensor `[..., units]`, or a tuple of such (as an LSTM has), or None.
            width: the name of the width; may be left out where the model has one.

        Raises:
            StructureError: the state does not fit the width, or it is unclear which width is meant.
        """
        return carry_state(state, width, self.widths, self._last)

    def record(self) -> Record:
        """The run so far in plain values, as a page shows it: sizes, importances, loss and cost over time.

        Example:
            >>> import torch
            >>> import diffstruct as ds
            >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
            >>> optimizer = torch.optim.Adam(model.parameters())
            >>> x = torch.ones(16, 3)
            >>> structure = ds.Structure(model, optimizer, example_inputs=(x,), total_steps=100)
            >>> loss = (model(x) - 1).square().mean()
            >>> loss.backward()
            >>> optimizer.step()
            >>> events = structure.step(loss)
            >>> record = structure.record()
            >>> record.widths[0].name, record.widths[0].start, record.cost["parameters"]
            ('0', 8, [(1, 41.0)])
        """
        return record_of(self)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write the run so far as a page: one HTML file, which loads nothing from elsewhere.

        Args:
            path: the file to write, in the place of its former version if there is one.

        Raises:
            ConfigurationError: Plotly is not installed (`pip install 'diffstruct[report]'`), or the file
                cannot be written.

        Example:
            >>> import torch
            >>> import diffstruct as ds
            >>> model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
            >>> optimizer = torch.optim.Adam(model.parameters())
            >>> inputs = (torch.ones(16, 3),)
            >>> structure = ds.Structure(model, optimizer, example_inputs=inputs, total_steps=100)
            >>> structure.report("page.html")
        """
        write([self.record()], path)

    def explain(self) -> str:
        """Which sizes of the model are not learned, and why: a line each."""
        return self._found.explain()

    def __str__(self) -> str:
        title = f"Structure after {self.steps} of {self.training.total_steps} steps"
        rows = table(self.model, self.widths.values(), self._reserve, self.history)
        return f"{title}\n{self.criterion.describe()}\n{rows}"

    def _reserve(self, width: Width) -> int:
        """Sub-threshold units; `finish` has left none."""
        if self._finished:
            return 0
        return int((self.criterion.importance(width) <= self.training.threshold(width.name)).sum())
