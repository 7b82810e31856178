"""Surgery that is tried on a model, and undone: whether its output is what it was before.

A silent unit is added, of which everything is random but its outgoing weights, which are zero, and the
model's output must be what it was before; a unit in the middle is silenced, then removed, and the output must
be the same both times; and the model must run in the modes in which it is trained. Each time the model is
restored bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffstruct.couple.awakening import awake, faint
from diffstruct.couple.even_draws import EvenDraws
from diffstruct.couple.findings import Findings, coarsest
from diffstruct.couple.sharpening import FACTORS, Sharpening, apart
from diffstruct.couple.silent_units import silent_units
from diffstruct.errors import StructureError
from diffstruct.interrupts import allowed
from diffstruct.nn.outputs import tensors_in
from diffstruct.nn.undisturbed import undisturbed
from diffstruct.surgery import Change, plan
from diffstruct.width.layout import owners
from diffstruct.width.silence import silence_writers, writers
from diffstruct.width.width import READERS, Role, Width

BEYOND_DOUBT = 100.0
"""So many times the tolerance must a scale that is a tenth too large change some output."""


class ProofError(Exception):
    """Surgery refutes a width; the message says how."""


class ChangesOutputError(ProofError):
    """The model runs at another size, but its output is another."""


class Trials:
    """Tries surgery on a model.

    Args:
        model: the model.
        run: the model with the example inputs as its arguments. A deep copy of a proof together with its
            model runs the copy of the model.
        trains: whether it runs with the modes that its modules are in as well.
        findings: what the trace found: whether the model draws random numbers in evaluation mode, which are
            then made independent of sizes, and how coarsely it computes.
    """

    def __init__(self, model: nn.Module, run: partial[Any], trains: bool, findings: Findings) -> None:
        self.model, self.run, self.trains = model, run, trains
        self.draws, self.precision = findings.draws, findings.coarsest
        self.expected = self.outputs()
        self._sharpening = Sharpening(())
        self._sharp_outputs: list[Tensor] | None = None

    def sharpen(self, variants: Iterable[Sequence[Sequence[Width]]]) -> None:
        """Find out at which weights of attention its scale matters: there it is tried what scale it has.

        The smallest that show a wrong scale beyond doubt are best. With larger ones, rounding decides which
        of two nearly equal things is attended to, and in a large batch some output always hangs on that.

        Args:
            variants: of all widths, as `prove` takes them.
        """
        self._sharpening, self._sharp_outputs = Sharpening(variants), self.expected
        best = 0.0
        for factor in FACTORS if self._sharpening else ():
            with self._sharpening.applied(factor):
                here = self.outputs()
            with self._sharpening.applied(1.1 * factor):
                change = apart(here, self.outputs())
            if change > best:
                best, self._sharpening.factor, self._sharp_outputs = change, factor, here
            if best > BEYOND_DOUBT * self._tolerance(here):
                break

    @contextmanager
    def all_heard(self) -> Iterator[None]:
        """Let the output depend on branches that the model begins without meanwhile; see `awakening`."""
        expected, silent = self.expected, faint(self.model)
        if not silent:
            yield
            return
        with awake(silent):
            try:
                self.expected, self._sharp_outputs = self.outputs(), None
                yield
            finally:
                self.expected, self._sharp_outputs = expected, None

    @contextmanager
    def sharp(self, needed: bool) -> Iterator[None]:
        """Let the output depend on the scale of attention meanwhile, where that is needed."""
        expected = self.expected
        if not needed:
            yield
            return
        with self._sharpening.applied():
            if self._sharp_outputs is None:
                self._sharp_outputs = self.outputs()
            self.expected = self._sharp_outputs
            try:
                yield
            finally:
                self.expected = expected

    @contextmanager
    def even_gains(self, widths: Iterable[Width]) -> Iterator[None]:
        """Give all units of a `LayerNorm` the same gain and bias meanwhile.

        What a `LayerNorm` returns has the same mean for every example only then. Behind others a channel
        that equals the mean differs from the next mean, by about the gains' spread over the root of their
        number: surgery there is exact only to that.
        """
        expected = self.expected
        centred = [each for each in widths if each.normalisation is not None and each.normalisation.centred]
        slots = (slot for width in centred for slot in width.having(Role.INCOMING) if slot.tensor.ndim == 1)
        uneven = {slot.tensor: None for slot in slots if slot.tensor.is_floating_point()}
        backup = [(tensor, tensor.detach().clone()) for tensor in uneven if (tensor != tensor[0]).any()]
        if not backup:
            yield
            return
        try:
            for tensor, before in backup:
                tensor.data.fill_(before.mean())
            self.expected = self.outputs()
            yield
        finally:
            self.expected = expected
            for tensor, before in backup:
                tensor.data.copy_(before)

    def insertion(self, more: Mapping[Width, int]) -> None:
        """Add so many silent units to each of the widths at once; the output must not change.

        Raises:
            ProofError: it does, or the model fails.
        """
        undo = self._operate(*_growing(more))
        try:
            together = "silent units together change" if len(more) > 1 else "a silent unit changes"
            self.same(self.outputs(), self.expected, f"{together} the model's output")
        finally:
            undo()

    def removal(self, widths: Iterable[Width]) -> None:
        """Silence a unit in the middle of each width, then remove it; the outputs must be the same.

        Raises:
            ProofError: they are not, or the model fails.
        """
        widths = [width for width in widths if width.size > 1]  # the last unit cannot be removed
        gone = {width: torch.arange(width.size) == width.size // 2 for width in widths}
        slots = [slot for width in widths for slot in width.having(*READERS, Role.INCOMING)]
        backup = [(tensor, tensor.detach().clone()) for tensor in {slot.tensor: None for slot in slots}]
        try:
            with torch.no_grad():
                for width in widths:
                    self._silence(width, gone[width])
            silent = self.outputs()
            keep = {width: tuple((~gone[width]).nonzero()[:, 0].tolist()) for width in widths}
            undo = self._operate(*(Change(width, keep[width], 0) for width in widths))
            try:
                self.same(self.outputs(), silent, "removing a silent unit changes the model's output")
            finally:
                undo()
        finally:
            for tensor, before in backup:
                tensor.data.copy_(before)

    @staticmethod
    def _silence(width: Width, gone: Tensor) -> None:
        for slot in width.having(*READERS):
            units = owners(slot.layout, width.axis)
            where = ((units >= 0) & gone[units]).nonzero()[:, 0].to(slot.tensor.device)
            slot.tensor.data.index_fill_(slot.dim, where, 0)
        for slot in writers(width) if width.normalisation is not None else ():
            silence_writers(width, slot, slot.tensor.data, gone)

    def runs(self, changes: Iterable[Change]) -> None:
        """Check that the model runs after some changes at once.

        Raises:
            ProofError: it does not.
        """
        undo = self._operate(*changes)
        try:
            self.outputs()
            if self.trains:
                self.outputs(training=True)
        finally:
            undo()

    def together(self, widths: Iterable[Width]) -> None:
        """Add a silent unit to each of the widths at once; the output must not change.

        Raises:
            ProofError: it does.
        """
        widths = [*widths]
        with self.even_gains(widths):
            self.insertion(dict.fromkeys(widths, 1))

    def trained(self, more: Mapping[Width, int]) -> None:
        """Check that the model runs in the modes in which it is trained, with so many units more.

        Raises:
            ProofError: it does not.
        """
        if self.trains:
            undo = self._operate(
                *(Change(width, tuple(range(width.size)), add) for width, add in more.items())
            )
            try:
                self.outputs(training=True)
            finally:
                undo()

    def _operate(self, *changes: Change) -> Callable[[], None]:
        try:
            return plan(changes, (), silent_units).commit()
        except StructureError as error:  # no unit can be silent for what normalises it
            raise ChangesOutputError(str(error)) from error

    def outputs(self, training: bool = False) -> list[Tensor]:
        """The model's outputs on the example inputs.

        Raises:
            ProofError: the model fails.
        """
        # With gradients, which a model can need for its output (forces, from an energy).
        draws = EvenDraws() if self.draws and not training else nullcontext()
        with undisturbed(self.model, training), torch.enable_grad(), draws, allowed():
            try:
                return [tensor.detach().clone() for tensor in tensors_in(self.run())]
            except (MemoryError, torch.OutOfMemoryError):  # which says nothing of the size
                raise
            except Exception as error:  # whatever the user's code raises where a size does not fit
                raise ProofError(f"with a unit more or less the model fails: {one_line(error)}") from error

    def same(self, found: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> None:
        """Compare outputs, up to rounding.

        Raises:
            ChangesOutputError: they are not the same; the message begins with `what`.
        """
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
            raise ChangesOutputError(f"{what}: its shape")
        tolerance = self._tolerance(found)
        for mine, right in zip(found, expected, strict=True):
            if not right.dtype.is_floating_point:
                if not torch.equal(mine, right):
                    raise ChangesOutputError(what)
                continue
            mine, right = mine.double(), right.double()
            finite = right.isfinite()
            if not torch.equal(mine.isfinite(), finite):
                raise ChangesOutputError(f"{what}: it is not finite")
            scale = float(right[finite].abs().max()) if finite.any() else 1.0
            apart = float((mine - right)[finite].abs().max()) if finite.any() else 0.0
            if apart > tolerance * scale:
                raise ChangesOutputError(f"{what}, by {apart / scale:.1g} of it")

    def _tolerance(self, outputs: Sequence[Tensor]) -> float:
        """What outputs may differ by, as a share of the largest entry: rounding adds up on its way."""
        types = [tensor.dtype for tensor in outputs if tensor.dtype.is_floating_point]
        return float(torch.finfo(coarsest([*types, self.precision] if types else [])).eps ** 0.7)


def _growing(more: Mapping[Width, int]) -> Iterator[Change]:
    for width, add in more.items():
        yield Change(width, tuple(range(width.size)), add)


def one_line(error: BaseException) -> str:
    """The kind of an error and what it says, shortened."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:160]}"
