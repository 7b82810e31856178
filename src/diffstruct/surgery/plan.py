"""Former place of what `diffstruct.surgery` exports."""

from diffstruct.surgery.change import Change as Change
from diffstruct.surgery.commit import Plan as Plan
from diffstruct.surgery.commit import Resized as Resized
from diffstruct.surgery.cut import Cut as Cut
from diffstruct.surgery.hidden_state import carry as carry
from diffstruct.surgery.planning import Initialize as Initialize
from diffstruct.surgery.planning import leave_zero as leave_silent  # noqa: F401
from diffstruct.surgery.planning import operate as operate
from diffstruct.surgery.planning import plan as plan
