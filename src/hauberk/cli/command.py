"""A verb that takes each option once, because the last of two contradicting values would win without a word."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

from hauberk.errors import HauberkError


class Once(TyperCommand):
    """Refuses an option that is given twice, unless it may be repeated."""

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
