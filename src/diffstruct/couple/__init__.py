"""Which tensor dimensions must change together.

Modules of `diffstruct.nn` declare their widths (`declared`). Those of any other model are found by running it
once on example inputs (`trace`), by what each ATen operator says of dimensions (`operators`, `terms`), and
proved by surgery (`proof`).
"""

from diffstruct.couple.declared import declared_widths
from diffstruct.couple.find import traced_widths
from diffstruct.couple.proof import Proof
from diffstruct.couple.widths import Refusal

__all__ = ["Proof", "Refusal", "declared_widths", "traced_widths"]
