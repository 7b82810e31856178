"""Which tensor dimensions must change together.

Modules of `diffstruct.nn` declare their widths (`declared`). Those of any other model are found by running it
once on example inputs (`trace`), by what each ATen operator does to dimensions (`operators`, `terms`), and
proved by surgery (`proof`). `depths` finds residual blocks, which `block_proof` proves. `multiply_adds` is
what a model costs by the sizes of widths that were proved.
"""

from diffstruct.couple.depths import FoundDepths, depths_of, find_depths
from diffstruct.couple.find import EXCLUDED, find_widths
from diffstruct.couple.found import FoundWidths, Refusal
from diffstruct.couple.multiply_adds import MultiplyAdds
from diffstruct.couple.proof import Proof
from diffstruct.couple.trials import ProofError

__all__ = [
    "EXCLUDED",
    "FoundDepths",
    "FoundWidths",
    "MultiplyAdds",
    "Proof",
    "ProofError",
    "Refusal",
    "depths_of",
    "find_depths",
    "find_widths",
]
