"""How a figure is found in a report, and written."""

import re

SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def at(value: dict | list | None, path: str):
    """What is at a path of keys and of places in lists; "max" is the largest of a list."""
    key, _, rest = path.partition(".")
    if isinstance(value, list) and key == "max":
        found = [number for part in value if (number := at(part, rest)) is not None]
        return max(found, default=None)
    if isinstance(value, list):
        place = int(key)
        value = value[place] if -len(value) <= place < len(value) else None
    else:
        value = value.get(key) if isinstance(value, dict) else None
    return at(value, rest) if rest else value


def text(number: float) -> str:
    """Three digits that mean something; none behind the point for thousands."""
    if number >= 1000:
        return f"{round(number, 2 - len(str(int(number)))):,.0f}"
    if number == int(number) and number < 10:
        return f"{number:.0f}"
    return f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def size_bytes(given: int | str) -> int:
    """A size as a configuration has it: a number of bytes, or one with a unit."""
    found = SIZE.fullmatch(str(given))
    if not found:
        raise ValueError(f"{given!r} isn't a size: write for instance 1048576 or \"1 MiB\"")
    return int(found[1]) * UNITS[found[2] or "B"]
