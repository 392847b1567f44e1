"""Schemas of the JSON reports, by command: a file each, JSON Schema 2020-12."""

__all__: list[str] = []
