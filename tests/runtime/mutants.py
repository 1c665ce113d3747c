"""Break the runtime's guards one by one and see which break goes unnoticed.

`mutants.py STEP MODULE…` runs the fast tests under every STEP-th mutant of the modules and prints one JSON object:
how many there were, and those that survived. A mutant is a module with one condition forced, negated, weakened or
moved by one, or one statement gone; `sqlite.sql` stands for the SQL statements, whose conditions go too. A mutant
exists in memory only, in a forked process of its own.
"""

from __future__ import annotations

import ast
import copy
import importlib
import importlib.util
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "runtime" / "fencepost_runtime"
# Only what needs no process and no disk: a mutant lives in this process alone.
TESTS = ("conformance/test_e*.py", "conformance/test_i*.py", "conformance/test_[lw]*.py", "test_act*.py")
# A mutant may loop or wait for ever; neither so much work nor so long a wait is needed by one that works.
AT_MOST_CPU_S, AT_MOST_S = 20, 300

_NEGATED = {
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_MOVED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.GtE, ast.NotEq: ast.Lt}
_ARITHMETIC = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult}
_STATEMENTS = (ast.Expr, ast.Assign, ast.AugAssign, ast.Return, ast.Raise, ast.Continue)


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """What a node can be broken into."""
    match node:
        case ast.Compare(left, [operator], [right]):
            # Of two texts none is the next one.
            moved = {} if isinstance(getattr(right, "value", None), str) else _MOVED
            for table in (_NEGATED, moved):
                if type(operator) in table:
                    yield ast.Compare(left, [table[type(operator)]()], [right])
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(ast.And() if isinstance(operator, ast.Or) else ast.Or(), values)
            yield from values
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, operator, right) if type(operator) in _ARITHMETIC:
            yield ast.BinOp(left, _ARITHMETIC[type(operator)](), right)
        case ast.Constant(bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(int() as value):
            yield ast.Constant(value + 1)
    if isinstance(node, _STATEMENTS) and not _says_nothing(node):
        yield ast.Pass()


def forced(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """The conditions that a node decides by, each with what it is forced to: (field, replacement)."""
    if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Constant):
        yield "test", ast.Constant(True)
        yield "test", ast.Constant(False)
    if isinstance(node, ast.comprehension):
        for number in range(len(node.ifs)):
            yield "ifs", ast.List([*node.ifs[:number], *node.ifs[number + 1 :]])


def _says_nothing(node: ast.AST) -> bool:
    """A docstring; or a return of None, which is as good as none where a function ends."""
    value = getattr(node, "value", None)
    if isinstance(node, ast.Return):
        return isinstance(value, ast.Constant) and value.value is None
    return isinstance(node, ast.Expr) and isinstance(value, ast.Constant)


def mutants(path: Path) -> list[Callable[[], tuple[str, ast.Module]]]:
    """Every mutant of a module; calling one answers what was done where, and the broken module."""
    original = ast.parse(path.read_text("utf-8"))
    return [
        partial(_mutant, path.name, original, number, field, replacement)
        for number, node in enumerate(_nodes(original))
        for field, replacement in (*((None, variant) for variant in variants(node)), *forced(node))
    ]


def _mutant(name: str, original: ast.Module, number: int, field: str | None, new: ast.AST) -> tuple[str, ast.Module]:
    node = _nodes(original)[number]
    what = f"{name}:{getattr(node, 'lineno', 0)} {_text(getattr(node, field) if field else node)} -> {_text(new)}"
    broken = copy.deepcopy(original)
    changed = _put(broken, _nodes(broken)[number], field, copy.deepcopy(new))
    return what, ast.fix_missing_locations(changed)


def _nodes(tree: ast.Module) -> list[ast.AST]:
    """The nodes that say what is done: not how a class is made, nor what a name stands for."""
    decorators = [entry for node in ast.walk(tree) for entry in getattr(node, "decorator_list", ())]
    idle = {id(inner) for decorator in decorators for inner in ast.walk(decorator)}
    return [node for node in ast.walk(tree) if not _is_idle(node) and id(node) not in idle]


def _is_idle(node: ast.AST) -> bool:
    """Contexts and operators, which Python shares between nodes."""
    return isinstance(node, ast.expr_context | ast.operator | ast.cmpop | ast.boolop | ast.unaryop)


def _text(node: Any) -> str:
    if isinstance(node, list):
        return ", ".join(_text(entry) for entry in node)
    return " ".join(ast.unparse(ast.fix_missing_locations(node)).split())[:100]


def _put(tree: ast.Module, target: ast.AST, field: str | None, replacement: Any) -> ast.Module:
    if field is not None:
        setattr(target, field, replacement.elts if isinstance(replacement, ast.List) else replacement)
        return tree

    class Replacer(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            return ast.copy_location(replacement, node) if node is target else self.generic_visit(node)

    changed: ast.Module = Replacer().visit(tree)
    return changed


def sql_mutants(file: str) -> list[Callable[[], tuple[str, ast.Module]]]:
    """Every mutant of a file of named SQL statements: a condition gone or off by one, an order turned round."""
    text = (PACKAGE / "sql" / f"{file}.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    statements = dict(zip(parts[::2], parts[1::2], strict=True))
    return [
        partial(_sql_mutant, statements, name, broken)
        for name, body in statements.items()
        for broken in _broken_sql(body)
        if name != "schema"
    ]


def _broken_sql(body: str) -> Iterator[str]:
    where = re.search(r"WHERE (.+?)(;|$|\n)", body)
    for condition in where[1].split(" AND ") if where else ():
        yield body.replace(condition, "1")
    order = re.search(r"ORDER BY (.+?)(;|$|\n)", body)
    for column in order[1].split(", ") if order else ():
        # Without it the rows often come in the same order by chance: turned round, never.
        yield body.replace(order[0], order[0].replace(column, f"{column} DESC"))
    for sign, other in (("<=", "<"), ("<>", "="), ("value + 1", "value + 2"), ("count(*)", "1"), ("sum(", "max(")):
        if sign in body:
            yield body.replace(sign, other)


def _sql_mutant(statements: dict[str, str], name: str, broken: str) -> tuple[str, ast.Module]:
    changed = {key: (broken if key == name else body).strip() for key, body in statements.items()}
    was, now = (" ".join(text.split()) for text in (statements[name], broken))
    return f"{name}: {was} -> {now}", ast.parse(f"def statements(file):\n    return {changed!r}")


class _Instead(MetaPathFinder, Loader):
    """Gives one module's name a broken body."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name = name
        self._code = code

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def survives(module: str, broken: ast.Module | None, tests: list[str]) -> bool:
    """Whether the tests pass under the mutant; None stands for the module as it is."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (AT_MOST_CPU_S, AT_MOST_CPU_S))
        signal.alarm(AT_MOST_S)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        if broken is not None:
            sys.meta_path.insert(0, _Instead(f"fencepost_runtime.{module}", compile(broken, module, "exec")))
        import pytest

        backend = "sqlite" if module == "statements" else "not sqlite and not postgres"
        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "-k", backend, *tests]))
    _, status = os.waitpid(pid, 0)
    return status == 0


def main(step: int, modules: list[str]) -> None:
    # What takes long to import, once, before the forks.
    for name in ("hypothesis", "psycopg", "pytest", "sqlite3", "opentelemetry.trace"):
        importlib.import_module(name)
    os.chdir(ROOT)
    tests = sorted(str(path) for pattern in TESTS for path in Path(__file__).parent.glob(pattern))
    assert survives("rules", None, tests), "the fast tests fail without a mutant"
    all_of_them = [
        ("statements" if name == "sqlite.sql" else name, mutant)
        for name in modules
        for mutant in (sql_mutants("sqlite") if name == "sqlite.sql" else mutants(PACKAGE / f"{name}.py"))
    ]
    tried = all_of_them[::step]
    survivors = []
    for module, mutant in tried:
        what, broken = mutant()
        if survives(module, broken, tests):
            survivors.append(what)
    sys.stdout.write(json.dumps({"mutants": len(all_of_them), "tried": len(tried), "survivors": survivors}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
