"""What a metric raises where the weights or the package that it needs can't be had."""

from __future__ import annotations

from ragaf_exp.core.errors import UserError


class Unavailable(UserError):
    """The metric can't be measured here, and nothing stands in for it: it is reported as unavailable, with this reason.

    The message is one line that names the key and the mend, as any UserError's. A file that the user named and that is
    missing or damaged is no such case: that is his mistake, a plain UserError.
    """
