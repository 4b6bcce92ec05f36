"""The one exception a user's mistake raises: printed as a single line, exit status 2, never a traceback."""


class UserError(Exception):
    """Bad input or configuration. The message is one line: it names the file or key, and the mend."""


class Diverged(UserError):
    """The loss became NaN or infinite; the last good checkpoint is kept."""
