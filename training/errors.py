"""What ends a training run with one sentence and exit code 2."""


class RunError(Exception):
    """The data or the configuration cannot be used; the message is one whole sentence that names
    what and where.
    """
