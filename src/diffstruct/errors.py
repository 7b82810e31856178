"""The errors and warnings a user may meet. Each says what was expected, what came, and what to do."""


class DiffstructError(Exception):
    """Anything that diffstruct itself raises."""


class ConfigurationError(DiffstructError, ValueError):
    """A parameter has a value that cannot work."""


class DataError(DiffstructError, ValueError):
    """A text or a task cannot be read or learned from."""


class StructureError(DiffstructError, RuntimeError):
    """A model or an optimizer cannot take part in a change of structure."""


class DivergenceError(DiffstructError, RuntimeError):
    """The loss became infinite or not a number."""


class RunFolderError(DiffstructError, RuntimeError):
    """A run folder cannot be written, already holds a run, or holds none that could be gone on with."""


class ResumeWarning(UserWarning):
    """A run goes on, but perhaps not bit for bit as it would have without the interruption."""


class CheckpointError(DiffstructError, RuntimeError):
    """A checkpoint cannot be saved, or cannot be loaded."""


class StructureWarning(UserWarning):
    """Something keeps the structure from being learned, or from being learned well."""
