"""Where people train: each module here needs a library of its own, and is imported by its name."""
