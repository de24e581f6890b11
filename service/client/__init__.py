"""`from hourglass.client import Client, AsyncClient`: the service's routes as Python's methods.

Rows may be lists, dicts, a numpy array, or a frame of polars or pandas. Answers are those of the
service's document, with types; problems are exceptions that name the row and the feature.
"""

from .answers import ClientError, NoAnswer, Problem, Scores
from .asking import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "ClientError", "NoAnswer", "Problem", "Scores"]
