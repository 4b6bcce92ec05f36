"""The one exception a user's mistake raises: printed as a single line, exit status 2, never a traceback."""


class UserError(Exception):
    """Bad input or configuration. The message is one line: it names the file or key, and the mend."""


def at_least(group: str, low: float, **values: float) -> None:
    """UserError where a config group's value is below `low`, or no finite number."""
    for key, value in values.items():
        if not low <= value < float("inf"):
            raise UserError(f"{group}.{key}={value}: must be at least {low:g}")


class Diverged(UserError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""
