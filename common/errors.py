"""The errors that end a run with a message and no traceback."""


class UserError(ValueError):
    """A command, config or input that is wrong, in words for the person who gave it.

    The message says what was got, what is accepted, which key or file, what to do.
    `launch.py` prints it and exits with status 2.
    """


class RunFailed(RuntimeError):
    """A run that cannot go on, such as one whose loss is not finite; status 1."""


class Interrupted(RuntimeError):
    """A run stopped by a signal after its checkpoint was written; status 1."""


class Incomplete(RuntimeError):
    """A run that did its work but left some of the input out; status 3.

    Raised at the end, and only where `config.strict` asks for it.
    """
