"""Read a log as the runner of GitHub Actions does, by its rules for workflow commands."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Command", "read_log"]

_COMMANDS = {
    "add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group", "notice", "remove-matcher",
    "save-state", "set-env", "set-output", "stop-commands", "warning",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """One workflow command."""

    name: str
    properties: dict[str, str]
    data: str


def read_log(text: str) -> tuple[list[str], list[Command]]:
    """Return the lines that are shown, and the commands that are carried out."""
    log, commands = [], []
    for line in text.replace("\r\n", "\n").replace("\r", "\n").splitlines():
        command = _new_form(line.lstrip()) or _old_form(line)
        if command is None:
            log.append(line)
        else:
            commands.append(command)
    return log, commands


def _new_form(line: str) -> Command | None:
    """``::name key=value,key=value::data``, after any space."""
    end = line.find("::", 2)
    if not line.startswith("::") or end < 0:
        return None
    name, _, given = line[2:end].partition(" ")
    if name not in _COMMANDS:
        return None
    pairs = [pair.partition("=") for pair in given.strip().split(",") if pair]
    properties = {key: _unescaped(value, ":", ",") for key, _, value in pairs}
    return Command(name, properties, _unescaped(line[end + 2 :]))


def _old_form(line: str) -> Command | None:
    """``##[name key=value;key=value]data``, anywhere in a line; to some comparisons joiners are nothing."""
    line = "".join(char for char in line if char not in "\u200c\u200d\ufe0e\ufe0f")
    start, end = line.find("##["), line.find("]", line.find("##["))
    if start < 0 or end < 0:
        return None
    name = line[start + 3 : end].partition(" ")[0]
    return Command(name, {}, line[end + 1 :]) if name in _COMMANDS else None


def _unescaped(text: str, *more: str) -> str:
    for char in ("\r", "\n", *more, "%"):
        text = text.replace(f"%{ord(char):02X}", char)
    return text
