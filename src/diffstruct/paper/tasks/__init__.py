"""The paper's tasks: texts to predict one character at a time, and the best loss possible on each.

Miconi, "Neural networks with differentiable structure" (arXiv:1606.06216), section on the tasks.
The *floor* of a task is the entropy of its text in nats per character: no predictor, of any size,
does better in the long run. It is derived here from the task's parameters, not tabulated.
"""

from diffstruct.paper.tasks.phases import NAMES, Phase, hard_easy, schedule, transition
from diffstruct.paper.tasks.reader import Reader, Stretch, Window, windows
from diffstruct.paper.tasks.task import BRACKETS, LENGTH, SEQUENCE, Task
from diffstruct.paper.tasks.texts import easy, hard, text_file

__all__ = [
    "BRACKETS",
    "LENGTH",
    "NAMES",
    "SEQUENCE",
    "Phase",
    "Reader",
    "Stretch",
    "Task",
    "Window",
    "easy",
    "hard",
    "hard_easy",
    "schedule",
    "text_file",
    "transition",
    "windows",
]
