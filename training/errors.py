"""What ends a training run with one sentence and exit code 2, or 3 where the gate refuses it."""


class RunError(Exception):
    """The data or the configuration cannot be used; the message is one whole sentence that names
    what and where.
    """


class Refused(RunError):
    """The gate lets nothing take the place of the model in service, whose reason this is."""
