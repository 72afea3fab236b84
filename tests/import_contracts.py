"""Two kinds of import contracts for import-linter, named in setup.cfg.

Its own kinds forbid what is listed. Here a rule lists what is allowed, so that a dependency that nobody had thought of
breaks it too, and a module that does not exist yet breaks nothing. Both look at direct imports only: what is allowed
has a contract of its own. Modules are shell patterns; a package stands for its __init__.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


def matches(module: str, patterns: Iterable[str]) -> bool:
    """One of the patterns names the module."""
    return any(fnmatchcase(module, pattern) for pattern in patterns)


class _DirectImports(Contract):
    """Breaks with each import that `is_illegal`."""

    def is_illegal(self, importer: str, imported: str) -> bool:
        raise NotImplementedError

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        illegal = sorted(self._illegal(graph))
        return ContractCheck(kept=not illegal, metadata={"illegal": illegal})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported, line in check.metadata["illegal"]:
            output.print_error(f"{importer} is not allowed to import {imported} (line {line})", bold=False)

    def _illegal(self, graph: ImportGraph) -> Iterator[tuple[str, str, int]]:
        for importer in graph.modules:
            for imported in graph.find_modules_directly_imported_by(importer):
                if self.is_illegal(importer, imported):
                    for found in graph.get_import_details(importer=importer, imported=imported):
                        yield importer, imported, found["line_number"]


class AllowedImports(_DirectImports):
    """The source modules import the standard library, one another and the allowed modules, and nothing else."""

    type_name = "allowed"

    source_modules = fields.ListField(subfield=fields.StringField())
    allowed_modules = fields.ListField(subfield=fields.StringField(), required=False, default=[])

    def is_illegal(self, importer: str, imported: str) -> bool:
        if not matches(importer, self.source_modules):
            return False
        if imported.partition(".")[0] in sys.stdlib_module_names:
            return False
        return not matches(imported, [*self.source_modules, *self.allowed_modules])


class ReservedFor(_DirectImports):
    """Only the importers import the reserved top-level packages."""

    type_name = "reserved"

    reserved_modules = fields.ListField(subfield=fields.StringField())
    importers = fields.ListField(subfield=fields.StringField())

    def is_illegal(self, importer: str, imported: str) -> bool:
        return imported.partition(".")[0] in self.reserved_modules and not matches(importer, self.importers)
