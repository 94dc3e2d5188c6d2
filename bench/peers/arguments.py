"""What the environment's variables ask for. A wrong value is told with those that are allowed: exit code 2."""

import os

EXIT_FAILED, EXIT_WRONG_ARGUMENT = 1, 2


class ArgumentError(Exception):
    """A variable with a value that means nothing."""


def names(variable: str, known: list[str]) -> list[str]:
    """Those of `known` that the variable names, separated by commas or blanks; all, if it names none."""
    given = os.environ.get(variable, "").replace(",", " ").split()
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ArgumentError(f"{variable}: there is no {unknown[0]!r}; allowed are {', '.join(known)}")
    return [name for name in known if not given or name in given]


def number(variable: str, default: int, largest: int) -> int:
    given = os.environ.get(variable, "").strip()
    if not given:
        return default
    if not given.isdecimal() or not 1 <= int(given) <= largest:
        raise ArgumentError(f"{variable}: {given!r} isn't a whole number from 1 to {largest:,}")
    return int(given)
