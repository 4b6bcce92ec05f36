"""The one exception a user's mistake raises: printed as a single line, exit status 2, never a traceback."""


class UserError(Exception):
    """Bad input or configuration. The message is one line: it names the file or key, and the mend."""


def at_least(group: str, low: float, **values: float) -> None:
    """UserError where a config group's value is below `low`, or no finite number."""
    for key, value in values.items():
        if not low <= value < float("inf"):
            raise UserError(f"{group}.{key}={value}: must be at least {low:g}")


def between(key: str, value: float, low: float, high: float, mend: float, above: bool = False) -> None:
    """UserError unless a config key's value lies in low to high; above: low itself is out."""
    if not (low < value if above else low <= value) or not value <= high:
        bound = f"be above {low:g} and at most {high:g}" if above else f"lie in {low:g} to {high:g}"
        raise UserError(f"{key}={value}: must {bound}; take {mend:g}")


class Diverged(UserError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""


class OutOfMemory(UserError):
    """Memory ran out and nothing smaller is left to try."""


class TooSmall(UserError, ValueError):
    """An image has fewer pixels than what is measured on it needs."""
