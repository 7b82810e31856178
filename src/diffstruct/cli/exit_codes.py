"""The exit codes of the commands, beside 0."""

FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130  # what shells give a command that Ctrl-C ended
