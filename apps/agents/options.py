"""The `key=value` input of agents that are driven by programs. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from apps.agents.base import AgentInputError

_SHOWN_CHARACTERS = 40  # of a user's own text, quoted back in an error


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one run, as written; read each through `number` or `text`, which check it."""

    values: Mapping[str, str]

    @classmethod
    def parse(cls, text: str, accepted: Iterable[str]) -> Self:
        """Read `a=1 b=2`. Raises AgentInputError for a word that is no accepted option, and for one given
        twice.
        """
        names = tuple(accepted)
        values: dict[str, str] = {}
        for word in text.split():
            name, equals, value = word.partition("=")
            if not equals or name not in names:
                known = ", ".join(f"{accepted_name}=…" for accepted_name in names)
                raise AgentInputError(f"{_shown(word)} is not understood; accepted are {known}")
            if name in values:
                raise AgentInputError(f"{name} is given twice; give it once")
            values[name] = value
        return cls(values)

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        """A whole number from `lowest` to `highest`. Raises AgentInputError."""
        text = self.values.get(name)
        if text is None:
            return default
        # isdecimal also takes other scripts' digits, which int() reads; the length bound comes before int()
        # does.
        if not text.isdecimal() or len(text) > len(str(highest)) or not lowest <= int(text) <= highest:
            raise AgentInputError(
                f"{name}={_shown(text)} cannot be used; {name} is a whole number from {lowest} to {highest}"
            )
        return int(text)

    def text(self, name: str, default: str, longest: int) -> str:
        """Text of 1 to `longest` characters. Raises AgentInputError."""
        text = self.values.get(name, default)
        if not 1 <= len(text) <= longest:
            raise AgentInputError(f"{name} has {len(text)} characters; it takes 1 to {longest}")
        return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
