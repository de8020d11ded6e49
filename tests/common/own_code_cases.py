"""Code as a user's, whose lines `test_own_code.py` expects in messages."""


def throw(error):
    """Raises an error in the next line."""
    raise error


def call(function):
    """Calls a function in the next line."""
    return function()
