"""A safety checker without a model, for tests of everything around it."""

from collections.abc import Callable

from serve_app import errors
from serve_app.images.codec import to_image
from serve_app.safety.replace import replace_flagged
from serve_app.types import Picture, Pictures, SafetyAction

__all__ = ["FakeChecker"]


class FakeChecker:
    """Flags what a function says.

    Args:
        flagged: tells whether a picture is unsafe; one that raises is a check that broke.
    """

    def __init__(self, flagged: Callable[[Picture], bool]) -> None:
        self._flagged = flagged

    def check(self, pictures: Pictures, action: SafetyAction) -> Pictures:
        """As in the protocol."""
        try:
            images = [to_image(picture) for picture in pictures.pictures]
            flags = [self._flagged(picture) for picture in pictures.pictures]
            return replace_flagged(pictures, images, flags, action)
        except Exception as exc:
            raise errors.SafetyCheckFailed(f"the fake check broke: {exc}") from exc
