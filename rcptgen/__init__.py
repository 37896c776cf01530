"""rcptgen: the list of valid recipients of a qmail host, compiled."""

__version__ = "0.1.0"
