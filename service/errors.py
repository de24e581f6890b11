"""What can go wrong in the domain.

Nothing here knows of HTTP; api/problems.py maps these to statuses.
"""


class HourglassError(Exception):
    """Base of every error that is meant to be read by a person; the message is one whole
    sentence.
    """


class InvalidRow(HourglassError):
    """A row or a value in it is not what the model expects."""

    def __init__(
        self,
        message: str,
        *,
        row: int | None = None,
        feature: str | None = None,
        expected: str | None = None,
        got: str | None = None,
        reason: str = "value",
    ) -> None:
        super().__init__(message)
        self.row, self.feature, self.expected, self.got = row, feature, expected, got
        self.reason = reason  # the value of the `reason` label of hourglass_rejections_total


class InvalidNumber(InvalidRow):
    """A cell of a JSON row holds what is no float32: NaN, Infinity, or a number beyond its
    range.
    """


class InvalidBody(HourglassError):
    """The request body as a whole cannot be read: no rows, wrong length."""


class InvalidJSON(InvalidBody):
    """The request body is not JSON, or not the JSON object that is expected."""


class UnsupportedMediaType(HourglassError):
    """The request body is of a kind the service does not read."""


class NotAcceptable(HourglassError):
    """The answer is asked for in a form that this route does not give."""


class TooManyRows(HourglassError):
    """More rows than the service takes in one request."""


class MalformedRequest(HourglassError):
    """What came is not HTTP/1.1."""


class RequestLineTooLong(HourglassError):
    """A request's first line, with its path, is longer than the service reads."""


class HeadTooLarge(HourglassError):
    """A request's fields, before or behind its body, are more than the service reads."""


class TooSlow(HourglassError):
    """A client has begun a request, and does not go on with it."""


class Overloaded(HourglassError):
    """The service holds as many connections, or bytes of bodies, as it may; later there is room."""


class ForeignHost(HourglassError):
    """The request is for a host that the service does not answer for."""


class ReadOnly(HourglassError):
    """The request would change what is served, which this process does not do."""


class UnknownModel(HourglassError):
    """No model of that name is served."""


class NotReady(HourglassError):
    """No model is in service."""


class NotDecodable(HourglassError):
    """The model's reconstruction needs the row as well as the code."""


class NotSampleable(HourglassError):
    """The model cannot make up rows: most of its code space decodes to nothing real."""


class UncertifiableAlpha(HourglassError):
    """The false-alarm rate asked for cannot be certified, or not reached at all, by the calibration
    rows there are.
    """


class ThresholdNotStored(HourglassError):
    """A new threshold could not be written beside the model, where other workers and restarts would
    find it.
    """


class InvalidArtifact(HourglassError):
    """A model file that is broken, foreign, unsafe, or of a format this service does not read."""


class InvalidTable(HourglassError):
    """A file of rows (CSV, Parquet) that cannot be read as a model's features."""


class InvalidSettings(HourglassError):
    """The service's settings are wrong, or the place it is to run in is not as it must be."""
