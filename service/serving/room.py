"""Room: how many bytes of bodies and answers the process holds at once, whoever sent them."""

from hourglass.service.errors import Overloaded


class Room:
    """Counts the bytes that are held, and refuses those beyond."""

    __slots__ = ("held", "most")

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    def take(self, count: int) -> None:
        """So many bytes of a body have come; Overloaded where there is no room for them."""
        if self.held + count > self.most:
            raise Overloaded(
                f"expected bodies of at most {self.most} bytes at once in this process, got more"
            )
        self.held += count

    def keep(self, count: int) -> None:
        """So many bytes of an answer wait for their client: those that are there cannot be
        refused, but bodies that come later can.
        """
        self.held += count

    def give_back(self, count: int) -> None:
        """So many bytes are no longer held."""
        self.held -= count
