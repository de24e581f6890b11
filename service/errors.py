"""What can go wrong in the domain.

Nothing here knows of HTTP; api/problems.py maps these to statuses.
"""

import json
from typing import Literal, get_args


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


class Unauthenticated(HourglassError):
    """The request brings no key, or none that is known here."""


class Forbidden(HourglassError):
    """The request's key does not open what it asks for."""


class RateExceeded(HourglassError):
    """The request's key was used more often than it may be."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message)
        self.seconds = seconds  # until it may be used again


class InvalidKeys(HourglassError):
    """The file of keys cannot be read or written, or a key not be what it is asked to be."""


class ReadOnly(HourglassError):
    """The request would change what is served, which this process does not do."""


class UnknownModel(HourglassError):
    """No model of that name is served."""


class NoReport(HourglassError):
    """No report lies beside the version that is asked for."""


class UnknownVersion(HourglassError):
    """The model has no version of that name, or several."""


class NotPromoted(HourglassError):
    """The pointer to a version could not be written."""


class UnknownAlarms(HourglassError):
    """No alarms are kept under that key: they are too old, or there never were any."""


class JournalFailed(HourglassError):
    """The file of alarms cannot be read at the moment."""


class FullJournal(HourglassError):
    """The file of alarms takes no more feedback."""


class ShadowFailed(HourglassError):
    """What a challenger does cannot be told."""


class DriftFailed(HourglassError):
    """What is known of drift cannot be read at the moment."""


class NotLoaded(UnknownModel):
    """The model is there, but not in memory: who can wait asks the registry to load it."""


class LateRow(HourglassError):
    """A row of a stream is not later than the newest one, and did not come before."""


class NoStreams(HourglassError):
    """This process keeps no streams."""


class StreamsFailed(HourglassError):
    """The file of streams cannot be read at the moment."""


class UnknownEntity(HourglassError):
    """No row of that entity has come, or it was forgotten."""


class JobRefused(HourglassError):
    """A training that is asked for is not taken: it is under way already, or there are too many."""

    def __init__(self, message: str, *, job: str | None = None) -> None:
        super().__init__(message)
        self.job = job  # the id of the one that is under way


class NotTrained(HourglassError):
    """The model that is asked is still being trained, or could not be."""


class UnknownDetection(HourglassError):
    """No detection of that id is kept."""


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


# Why the newest state of a model's folder is not, or not wholly, in service: a closed set, since it
# is the label of a metric.
Fault = Literal[
    "gone",  # the folder, a moment ago
    "pointer",  # there is none, or it names no version
    "missing",  # the version's file is not there, or not yet
    "unreadable",  # a file may not be read, or is no regular file
    "damaged",  # the file's SHA-256 is another: it was changed, or is still being copied
    "untrusted",  # no key that is trusted has signed the file, or it was changed since
    "refused",  # the file is broken, foreign, unsafe, too large, or of another format
    "resources",  # descriptors or memory were used up
    "timeout",  # the load took too long
    "threshold",  # threshold.json is none
    "uncertifiable",  # what threshold.json asks for this version cannot give
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
PASSING: frozenset[Fault] = frozenset(
    ("missing", "unreadable", "damaged", "untrusted", "resources", "timeout")
)


class InvalidArtifact(HourglassError):
    """A model file that is broken, foreign, unsafe, or of a format this service does not read; or
    what stands beside it.
    """

    def __init__(self, message: str, fault: Fault = "refused") -> None:
        super().__init__(message)
        self.fault = fault


class InvalidTable(HourglassError):
    """A file of rows (CSV, Parquet) that cannot be read as a model's features."""


class InvalidSettings(HourglassError):
    """The service's settings are wrong, or the place it is to run in is not as it must be."""


def printable(text: str) -> str:
    """Text that may come from a file, for a terminal: what would move the cursor or colour the
    screen is written as JSON writes it.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text
    )
