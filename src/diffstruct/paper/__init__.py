"""The experiments of the paper, built on the library (Miconi 2016, arXiv:1606.06216).

| module | content |
|---|---|
| `tasks` | the texts to predict, with the best loss possible on each |
| `network`, `rmsprop` | the paper's network, and the optimizer of its third revision |
| `revisions` | the constants of each revision, and a network built from them |
| `training`, `compiled` | the training loop in PyTorch, and the same loop compiled |
| `seeds` | one seed split into one for each part of a run |
| `run`, `run_folder`, `display` | a run, what it leaves on disk, what it shows on the way |
| `loading`, `sampling`, `record` | trained networks from run folders, text from them, and what a page shows |
| `figures` | the figures of a run, and of many runs |
| `reproduce` | the paper's figures from many runs side by side |
"""

from diffstruct.paper import tasks
from diffstruct.paper.loading import load_run
from diffstruct.paper.rmsprop import ClippedRMSprop
from diffstruct.paper.run import Run
from diffstruct.paper.sampling import sample

__all__ = ["ClippedRMSprop", "Run", "load_run", "sample", "tasks"]
