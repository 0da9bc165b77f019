"""Kinds of import-linter contract that the library does not ship; used by pyproject.toml.

import-linter reads imports out of the source, so one inside a function counts like any other.
"""

import re
import sys
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output

Violation = tuple[str, str, int | None]
"""Importer, imported, line."""


class _Listed(Contract):
    """A contract whose breaches are a list of single imports."""

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Kept when `violations` finds none."""
        found = sorted(self.violations(graph), key=str)
        return ContractCheck(kept=not found, metadata={"found": found})

    def violations(self, graph: ImportGraph) -> list[Violation]:
        """Every import that the contract does not allow."""
        raise NotImplementedError

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line an import."""
        for importer, imported, line in check.metadata["found"]:
            output.print_error(f"- {importer} must not import {imported} (l.{line})", bold=False)
        output.new_line()


class Doors(_Listed):
    """Each package inside `container` is a room: others import its `doors` and nothing else."""

    type_name = "doors"
    container: Any = fields.StringField()
    doors: Any = fields.ListField(subfield=fields.StringField())

    def violations(self, graph: ImportGraph) -> list[Violation]:
        """Imports from one room into the inside of another."""
        container, doors = str(self.container), set(map(str, self.doors))
        missing = [door for door in sorted(doors) if door not in graph.modules]
        if missing:
            raise ValueError(f"a door that is no module: {missing[0]}")
        rooms = {room for room in graph.find_children(container) if graph.find_children(room)}
        found: list[Violation] = []
        for room in sorted(rooms):
            for importer in {room} | graph.find_descendants(room):
                for imported in graph.find_modules_directly_imported_by(importer):
                    other = _room(imported, rooms)
                    if other and other != room and imported not in doors:
                        found.append((importer, imported, _line(graph, importer, imported)))
        return found


class OnlyIn(_Listed):
    """`package` (such as ray.train) is imported by the `importers` and what is inside them alone.

    Known by the text of the import: of a package that is not ours the graph keeps the first name.
    """

    type_name = "only_in"
    package: Any = fields.StringField()
    importers: Any = fields.ListField(subfield=fields.StringField())

    def violations(self, graph: ImportGraph) -> list[Violation]:
        """Imports of the package anywhere else."""
        package, importers = str(self.package), tuple(map(str, self.importers))
        top, *below = package.split(".")
        names = [rf"import {re.escape(package)}\b", rf"from {re.escape(package)}\b"]
        if below:
            names.append(rf"from {re.escape(package.rpartition('.')[0])} import .*\b{below[-1]}\b")
        text = re.compile("|".join(names))
        found: list[Violation] = []
        for importer in sorted(graph.find_modules_that_directly_import(top)):
            if any(importer == each or importer.startswith(f"{each}.") for each in importers):
                continue
            for detail in graph.get_import_details(importer=importer, imported=top):
                if text.match(detail["line_contents"]):
                    found.append((importer, package, detail["line_number"]))
        return found


class Imports(_Listed):
    """The `modules` import the standard library, what is listed in `allowed`, and each other.

    Packages are meant with all that is in them, but for the modules listed in `but`.
    """

    type_name = "imports"
    modules: Any = fields.ListField(subfield=fields.StringField())
    allowed: Any = fields.ListField(subfield=fields.StringField())
    but: Any = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def violations(self, graph: ImportGraph) -> list[Violation]:
        """Every import beyond the list."""
        allowed = set(map(str, self.allowed))
        mine: set[str] = set()
        for module in map(str, self.modules):
            mine |= {module} | graph.find_descendants(module)
        mine -= set(map(str, self.but))
        found: list[Violation] = []
        for module in sorted(mine):
            for imported in graph.find_modules_directly_imported_by(module):
                if imported in allowed | mine or imported in sys.stdlib_module_names:
                    continue
                found.append((module, imported, _line(graph, module, imported)))
        return found


def _room(module: str, rooms: set[str]) -> str | None:
    return next((room for room in rooms if f"{module}.".startswith(f"{room}.")), None)


def _line(graph: ImportGraph, importer: str, imported: str) -> int | None:
    details = graph.get_import_details(importer=importer, imported=imported)
    return details[0]["line_number"] if details else None
