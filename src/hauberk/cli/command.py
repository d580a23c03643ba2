"""A verb that takes each option once, since the last of two values would win silently, and that imports its modules."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from typer.core import TyperCommand

from hauberk.cli.console import say
from hauberk.cli.interrupts import ending_at_once
from hauberk.cli.openings import opening
from hauberk.errors import HauberkError
from hauberk.later import Later


class Verb(TyperCommand):
    """A command that refuses an option given twice, unless it may be repeated, and imports its modules at its start."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count the options, then parse them as usual."""
        if args and not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for param in order:
                single = param.param_type_name == "option" and not getattr(param, "multiple", False)
                if single and order.count(param) > 1:
                    raise HauberkError(f"{param.opts[0]} is given {order.count(param)} times", "give it once")
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def invoke(self, ctx: Any) -> Any:
        """Announce the work and import the deferred modules, while Ctrl-C ends the process at once; then run the verb.

        Torch alone takes seconds to load, so the announcement comes first.
        """
        with ending_at_once():
            said = opening(str(ctx.info_name), ctx.params)
            if said:
                say(said)
            for value in vars(sys.modules[self.callback.__module__]).values():
                if isinstance(value, Later):
                    importlib.import_module(value.__name__)
        return super().invoke(ctx)
