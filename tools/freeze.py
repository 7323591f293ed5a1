"""Record the behaviour of the program, or compare it with the recorded behaviour.

python tools/freeze.py            writes tests/vectors/frozen/*.json
python tools/freeze.py --check    prints what differs from them, and exits with 1 if anything does

The record has bytes on the wire, plans and codes, models of every strategy, public names, options, help, keys
of JSON and exit codes. A commit that changes behaviour on purpose records it again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from frozen_commands import frozen_exit_codes, frozen_help, frozen_keys, frozen_options
from frozen_data import frozen_data, frozen_estimators, frozen_names
from frozen_numbers import frozen_rounds, frozen_twins
from frozen_wire import frozen_datagrams, frozen_plans, frozen_wire

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "frozen"

PARTS: Mapping[str, Callable[[], Any]] = {
    "wire": frozen_wire,
    "datagrams": frozen_datagrams,
    "plans": frozen_plans,
    "twins": frozen_twins,
    "rounds": frozen_rounds,
    "data": frozen_data,
    "estimators": frozen_estimators,
    "names": frozen_names,
    "options": frozen_options,
    "help": frozen_help,
    "exit_codes": frozen_exit_codes,
    "keys": frozen_keys,
}


def recorded(part: str) -> Any:
    """The recorded content of a part."""
    return json.loads((FOLDER / f"{part}.json").read_text(encoding="utf-8"))


def differences(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """One line for each place where two values of JSON differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted({*then, *now}):
            where = f"{path} / {key}" if path else key
            if key not in now:
                yield f"{where}: is gone"
            elif key not in then:
                yield f"{where}: is new"
            else:
                yield from differences(then[key], now[key], where)
    elif isinstance(then, list) and isinstance(now, list):
        yield from (f"{path}: is gone: {item}" for item in then if item not in now)
        yield from (f"{path}: is new: {item}" for item in now if item not in then)
        if sorted(map(str, then)) == sorted(map(str, now)) and then != now:
            yield f"{path}: is in another order"
    elif then != now:
        yield f"{path}: was {then}, is {now}"


def changes(part: str) -> list[str]:
    """The differences between a part and its record."""
    now = json.loads(json.dumps(PARTS[part]()))
    return list(differences(recorded(part), now))


def write(part: str, content: Any) -> None:
    """Record a part."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (FOLDER / f"{part}.json").write_text(text, encoding="utf-8")


def check(parts: list[str]) -> int:
    """Print all differences; 1 if there are any."""
    found = 0
    for part in parts:
        for line in changes(part):
            print(f"{part}: {line}")
            found += 1
    print(f"{found} differences")
    return int(found > 0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", help=f"only these of {', '.join(PARTS)}")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    given = parser.parse_args()
    parts = given.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    if given.check:
        sys.exit(check(parts))
    for part in parts:
        write(part, PARTS[part]())


if __name__ == "__main__":
    main()
