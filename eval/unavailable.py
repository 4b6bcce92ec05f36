"""The error that a metric raises if the weights or the package that it needs are not available."""

from __future__ import annotations

from ragaf_exp.core.errors import UserError


class Unavailable(UserError):
    """A metric can't be measured here. It is reported as unavailable, with this reason, and never replaced.

    As for any UserError, the message is one line that names the key and the fix. A missing or damaged file that the user
    named is a plain UserError instead.
    """
