"""The errors that end a run with a message and no traceback."""


class UserError(ValueError):
    """A wrong command, config or input, with a message for the user.

    The message says which value the code got, which values it accepts, which key or
    file is wrong, and what to do. `launch.py` prints it and exits with status 2.
    """


class RunFailed(RuntimeError):
    """A run that cannot continue, such as one with an infinite loss; status 1."""


class Interrupted(RuntimeError):
    """A run that a signal stopped, after its checkpoint was written; status 1."""


class Incomplete(RuntimeError):
    """A run that is done but skipped some of the input; status 3.

    It is raised at the end, and only with `config.strict`.
    """
