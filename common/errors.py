"""The one error that ends a run with exit status 2 and no traceback."""


class UserError(ValueError):
    """A command, config or input that is wrong, in words for the person who gave it.

    The message says what was got, what is accepted, which key or file, what to do.
    `launch.py` prints it and exits with status 2; anything else that is raised is a
    failed run and exits with status 1.
    """
