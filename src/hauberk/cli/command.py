"""A verb: each option once, because the last of two contradicting values would win without a word; then its imports."""

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
    """Refuses an option that is given twice, unless it may be repeated, and loads what the verb needs as it begins."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Count the options, then parse them as always."""
        if args and not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(args=list(args))
            for param in order:
                single = param.param_type_name == "option" and not getattr(param, "multiple", False)
                if single and order.count(param) > 1:
                    raise HauberkError(f"{param.opts[0]} is given {order.count(param)} times", "give it once")
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def invoke(self, ctx: Any) -> Any:
        """Say what is about to be done, import what the verb's file keeps for later, while Ctrl-C ends at once; run it.

        Torch alone takes seconds to load, so a person is told before.
        """
        with ending_at_once():
            said = opening(str(ctx.info_name), ctx.params)
            if said:
                say(said)
            for value in vars(sys.modules[self.callback.__module__]).values():
                if isinstance(value, Later):
                    importlib.import_module(value.__name__)
        return super().invoke(ctx)
