"""The one exception a user sees: what was expected, what came, what to do next."""


class HauberkError(Exception):
    """An error that teaches.

    Args:
        message: what was expected and what came, in one sentence.
        hint: the next thing to do, in one sentence.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n  {hint}" if hint else message)
        self.message = message
        self.hint = hint
