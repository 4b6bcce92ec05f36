"""Exceptions for users' mistakes: printed as a single line with exit status 2, never as a traceback."""


class UserError(Exception):
    """Bad input or configuration. The message is one line that names the file or key, and the remedy."""


def at_least(group: str, low: float, **values: float) -> None:
    """Check that config values are finite and not below a bound.

    Args:
        group: The config group, for messages.
        low: The smallest value allowed.
        **values: Key within the group -> value.

    Raises:
        UserError: A value is below `low` or not finite.
    """
    for key, value in values.items():
        if not low <= value < float("inf"):
            raise UserError(f"{group}.{key}={value}: must be at least {low:g}")


def between(key: str, value: float, low: float, high: float, default: float, above: bool = False) -> None:
    """Check that a config value lies in a range.

    Args:
        key: The full config key, for messages.
        value: Its value.
        low: Lower bound, itself allowed unless `above`.
        high: Upper bound, itself allowed.
        default: A value that the message recommends.
        above: Exclude `low`.

    Raises:
        UserError: The value lies outside the range.
    """
    if not (low < value if above else low <= value) or not value <= high:
        bound = f"be above {low:g} and at most {high:g}" if above else f"lie in {low:g} to {high:g}"
        raise UserError(f"{key}={value}: must {bound}; take {default:g}")


class Diverged(UserError):
    """The loss became NaN or infinite; the last good checkpoint stays."""


class OutOfMemory(UserError):
    """Memory ran out and nothing smaller is left to try."""


class TooSmall(UserError, ValueError):
    """An image has too few pixels for a measurement."""
