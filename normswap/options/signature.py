"""takes: the fields of a class of arguments as the signature of a function."""

from __future__ import annotations

import functools
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import fields
from typing import ParamSpec, TypeVar, cast, get_type_hints

from normswap.norms import all_parameters, make_norm
from normswap.options.declared import option_of

__all__ = ["takes"]

P = ParamSpec("P")
Arguments = TypeVar("Arguments")
Result = TypeVar("Result")


def takes(arguments: Callable[P, Arguments]) -> Callable[[Callable[[Arguments], Result]], Callable[P, Result]]:
    """Decorate a function of a class of arguments so that it is called with the fields of the class.

    Type checkers, ``inspect`` and ``help`` see the fields as the signature, and the docstring lists them. Parameters of
    a target, which are keyword arguments as well, become part of the Norm ``to``.
    """
    cls = cast(type, arguments)

    def decorate(function: Callable[[Arguments], Result]) -> Callable[P, Result]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Result:
            __tracebackhide__ = True  # pytest shows the caller's line
            try:
                given = _signature(cls).bind(*args, **kwargs).arguments
            except TypeError as error:
                raise TypeError(f"{function.__name__}() {error}") from None
            if "to" in given:
                parameters = {name: given.pop(name) for name in all_parameters() if name in given}
                given["to"] = make_norm(given["to"], **parameters)
            return function(cls(**given))

        call.__signature__ = _signature(cls)  # type: ignore[attr-defined]  # inspect reads it
        call.__doc__ = _documented(function.__doc__ or "", cls)
        return call

    return decorate


def _signature(arguments: type) -> inspect.Signature:
    hints = get_type_hints(arguments)
    own = [one.replace(annotation=hints[one.name]) for one in inspect.signature(arguments).parameters.values()]
    keyword = inspect.Parameter.KEYWORD_ONLY
    of_targets = [
        inspect.Parameter(name, keyword, default=None, annotation=parameter.type | None)
        for name, parameter in all_parameters().items()
        if "to" in hints
    ]
    first = next(index for index, parameter in enumerate(own) if parameter.kind is keyword)
    return inspect.Signature([*own[:first], *of_targets, *own[first:]])


def _documented(doc: str, arguments: type) -> str:
    """Insert the arguments into a docstring, before its first section."""
    documented = {declared.name: option_of(declared) for declared in fields(arguments)}
    texts = {name: f"{option.help} {option.python}" for name, option in documented.items()}
    texts |= {name: parameter.help for name, parameter in all_parameters().items()}
    lines = []
    for name in _signature(arguments).parameters:
        lines += textwrap.wrap(f"{name}: {texts[name]}", 116, initial_indent=4 * " ", subsequent_indent=8 * " ")
    before, *sections = inspect.cleandoc(doc).partition("\n\nR")
    return "\n".join([before, "", "Args:", *lines]) + "".join(sections)
