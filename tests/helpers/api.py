"""The public interface as text, which `make api` writes to `tests/release/api.txt`.

Public is what `docs/api.md` names. The sources are read by griffe, as the documentation reads them, and
nothing is run or imported: what comes out does not depend on what is installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from griffe import Alias, Attribute, Class, Function, Module, Object, Parameters, load

ROOT = Path(__file__).parents[2]
SNAPSHOT = ROOT / "tests" / "release" / "api.txt"
SPECIAL = (
    "__init__",
    "__call__",
    "__len__",
    "__iter__",
    "__getitem__",
    "__contains__",
    "__enter__",
    "__exit__",
)
"""Of the methods that Python calls, those that users do by what they write."""


def public_names() -> list[str]:
    """What the API page names."""
    return re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def described() -> str:
    """The public interface, a paragraph for each name."""
    package = load("diffstruct", search_paths=[ROOT / "src"], allow_inspection=False)
    lines: list[str] = []
    for name in sorted(public_names()):
        lines += ["", *of_object(name, resolved(package[name.removeprefix("diffstruct.")]))]
    return "\n".join(lines[1:]) + "\n"


def resolved(found: Object | Alias) -> Object:
    """What a name stands for, where it is defined."""
    return found.final_target if isinstance(found, Alias) else found


def of_object(name: str, found: Object) -> Iterator[str]:
    """Whatever it is."""
    if isinstance(found, Function):
        yield from of_function(name, found)
    elif isinstance(found, Class):
        yield from of_class(name, found)
    elif isinstance(found, Module):
        yield f"module {name}"
        for each in sorted(map(str, found.exports or ())):
            yield from indented(of_object(each, resolved(found[each])))
    else:
        assert isinstance(found, Attribute)
        yield of_attribute(name, found)


def of_class(name: str, found: Class) -> Iterator[str]:
    """Its bases, and its public members, those of its bases in the library included."""
    yield f"class {name}({', '.join(map(str, found.bases))})".replace("()", "")
    members = {each: resolved(member) for each, member in found.all_members.items()}
    if "__init__" not in members:
        yield "    takes what its base takes"
    for each in sorted(members, key=lambda each: (each not in SPECIAL, each)):
        if each in SPECIAL or not each.startswith("_"):
            yield from indented(of_object(each, members[each]))


def of_function(name: str, found: Function) -> Iterator[str]:
    """Its parameters, one a line where there are several; and what it returns."""
    for each in found.overloads or ():
        yield from of_function(name, each)
    kinds = sorted(found.labels & {"abstractmethod", "classmethod", "staticmethod"})
    returns = f" -> {found.returns}" if found.returns is not None else ""
    parameters = [*of_parameters(found.parameters)]
    if len(parameters) <= 2:
        yield f"{' '.join([*kinds, 'def'])} {name}({', '.join(parameters)}){returns}"
    else:
        yield f"{' '.join([*kinds, 'def'])} {name}("
        yield from (f"    {each}," for each in parameters)
        yield f"){returns}"


def of_parameters(parameters: Parameters) -> Iterator[str]:
    """Each as it is written in a signature, `/` and `*` among them where kinds change; without `self`."""
    before = None
    for each in parameters:
        if each.name in ("self", "cls"):
            continue
        kind = each.kind.name if each.kind is not None else ""
        if before == "positional_only" != kind:
            yield "/"
        if kind == "keyword_only" and before not in ("keyword_only", "var_positional"):
            yield "*"
        before = kind
        stars = {"var_positional": "*", "var_keyword": "**"}.get(kind, "")
        of_type = f": {each.annotation}" if each.annotation is not None else ""
        default = f" = {each.default}" if each.default is not None and not stars else ""
        yield stars + each.name + of_type + default
    if before == "positional_only":
        yield "/"


def of_attribute(name: str, found: Attribute) -> str:
    """Its type, and its value where that is the class's or the module's."""
    if "property" in found.labels:
        settable = ", can be set" if "writable" in found.labels else ""
        return f"property {name}: {found.annotation}{settable}"
    of_type = f": {found.annotation}" if found.annotation is not None else ""
    own = found.value is not None and found.labels & {"class-attribute", "module-attribute"}
    return f"attribute {name}{of_type}" + (f" = {found.value}" if own else "")


def indented(lines: Iterator[str]) -> Iterator[str]:
    """The same, further to the right."""
    return ("    " + line for line in lines)


if __name__ == "__main__":
    SNAPSHOT.write_text(described(), encoding="utf-8")
    print(f"{SNAPSHOT.relative_to(ROOT)} is what docs/api.md and the sources say now: see `git diff`")
