"""What a user can cause. Anything else is a bug and keeps its traceback."""


class HarnessError(Exception):
    """Something went wrong that a person can understand and mend. One line. Exit status 1."""

    exit_code = 1


class BadInput(HarnessError):
    """A wrong name, type or value in an experiment, an override or a path; found before anything runs. Exit 2."""

    exit_code = 2


class Diverged(HarnessError):
    """A training whose loss is no longer a number. tokens and training_flops: what it took until that was seen."""

    def __init__(self, message: str, tokens: int) -> None:
        super().__init__(message)
        self.tokens, self.training_flops = tokens, 0.0


class Interrupted(HarnessError):
    """The run was asked to stop (SIGTERM) and left its work so that the next run continues it. Exit 75."""

    exit_code = 75
