"""What a drill can fail with, besides its verdict."""

from __future__ import annotations


class DrillError(Exception):
    """The drill could not be carried out: a missing program, a cluster that did not settle, a dead client.

    The text says what was awaited and where the logs are. Not a verdict on the cluster's behaviour.
    """
