"""Reports: what a command found, as a document that people and machines read in any of several formats.

A result becomes a ``Document`` in one file of this room; a format writes any document in one function. The results
themselves (of verify, diagnose, recalibrate) are data, which this room knows by their shape alone.
"""

__all__: list[str] = []
