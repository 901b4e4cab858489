"""What can go wrong in front of the servers. None of it is in the way of a change of leader."""

from __future__ import annotations


class RouteError(Exception):
    """A pooler or load balancer did not do what it was asked for; the text is a sentence for log and record."""
