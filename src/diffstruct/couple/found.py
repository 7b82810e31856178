from dataclasses import dataclass
from diffstruct.couple.find import traced_widths
from diffstruct.couple.declared import declared_widths
from diffstruct.couple.widths import Refusal
from diffstruct.width.patterns import chosen
@dataclass
class FoundWidths:
    model: object; widths: dict; refused: list; proof: object
    def refuse(self, name, reason):
        w = self.widths.pop(name); self.refused.append(Refusal(tuple(map(str, w.slots)), w.size, reason))
    def explain(self): return "\n".join(map(str, self.refused))
def find_widths(model, example_inputs=None, *, include=("*",), exclude=()):
    model = getattr(model, "_orig_mod", model)
    if example_inputs is None:
        return FoundWidths(model, {n: w for n, w in declared_widths(model).items() if chosen(n, include, exclude)}, [], None)
    w, r, p = traced_widths(model, example_inputs, include, exclude)
    return FoundWidths(model, w, r, p)
