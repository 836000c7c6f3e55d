"""click's type of parameters, which is generic to type checkers only in newer releases of click."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    ParameterType = click.ParamType[Any]
else:
    ParameterType = click.ParamType


class CommandWords(ParameterType):
    """A program and its arguments, as a shell would split them."""

    name = "command"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """The words."""
        try:
            return value if isinstance(value, list) else shlex.split(value)
        except ValueError as error:
            self.fail(f"this is no command: {error}", param, ctx)
