"""Which tensor dimensions must change together.

Modules of `diffstruct.nn` declare their widths (`declared`). Those of any other model are found by running it
once on example inputs (`trace`), by what each ATen operator does to dimensions (`operators`, `terms`), and
proved by surgery (`proof`).
"""

from diffstruct.couple.find import find_widths
from diffstruct.couple.found import FoundWidths, Refusal
from diffstruct.couple.proof import Proof, ProofError

__all__ = ["FoundWidths", "Proof", "ProofError", "Refusal", "find_widths"]
