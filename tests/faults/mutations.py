"""Small faults that can be planted in source text: where they fit, and the text that has one of them.

The operators are cosmic-ray's, kept to those that leave plausible code (its `+` becomes `-`, not `<<`), and four of our
own, which take away a statement, a keyword argument or the difference between two functions or two arguments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators import exception_replacer
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.python import tree
from parso.tree import NodeOrLeaf

BINARY = {
    "Add": ["Sub"],
    "Sub": ["Add"],
    "Mul": ["Div", "Add"],
    "Div": ["Mul", "FloorDiv"],
    "FloorDiv": ["Mul", "Div"],
    "Mod": ["FloorDiv"],
    "Pow": ["Mul"],
    "BitAnd": ["BitOr"],
    "BitOr": ["BitAnd"],
    "BitXor": ["BitOr"],
}
COMPARISON = {
    "Eq": ["NotEq"],
    "NotEq": ["Eq"],
    "Lt": ["LtE", "GtE"],
    "LtE": ["Lt", "Gt"],
    "Gt": ["GtE", "LtE"],
    "GtE": ["Gt", "Lt"],
    "Is": ["IsNot"],
    "IsNot": ["Is"],
}
OTHER = [
    *(f"ReplaceUnaryOperator_{change}" for change in ("USub_UAdd", "Delete_Invert", "Delete_Not")),
    *("AddNot", "ReplaceTrueWithFalse", "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd"),
    *("ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "NumberReplacer"),
    *("RemoveDecorator", "ZeroIterationForLoop"),
]
SWAPS = [
    *(("min", "max"), ("any", "all"), ("sum", "mean"), ("zeros", "ones"), ("nanmin", "nanmax"), ("nansum", "nanmean")),
    *(("argmin", "argmax"), ("minimum", "maximum"), ("floor", "ceil"), ("startswith", "endswith"), ("first", "last")),
    *(("triu_indices", "tril_indices"), ("sin", "cos"), ("exp", "log"), ("append", "extend"), ("values", "keys")),
]


class DeleteStatement(Operator):
    """`raise`, a call, an early `return` or what changes a name that has a value already becomes `pass`."""

    def mutation_positions(self, node):
        if node.type == "simple_stmt" and _can_go(node.children[0]):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        node.children[0] = tree.Keyword("pass", node.start_pos, prefix=node.get_first_leaf().prefix)
        return node

    @classmethod
    def examples(cls):
        return ()


def _can_go(statement: NodeOrLeaf) -> bool:
    """Whether the code may still work without a statement: not where a name would be missing, or nothing returned."""
    if statement.type == "expr_stmt":
        function = statement.search_ancestor("funcdef")
        if function is None or statement.children[1].type == "annassign":
            return False
        names = {name.value for name in statement.get_defined_names()}
        before = {name.value for name in _names(function) if name.start_pos < statement.start_pos}
        return names <= before
    if statement.type == "return_stmt":
        return statement.parent.parent.type != "funcdef" and statement.search_ancestor("if_stmt") is not None
    return statement.type in ("atom_expr", "raise_stmt", "assert_stmt")


def _names(node: NodeOrLeaf) -> Iterator[tree.Name]:
    for part in ast_nodes(node):
        if part.type == "name" and part.is_definition():
            yield part


class ExceptionReplacer(exception_replacer.ExceptionReplacer):
    """An exception is not caught any more. Cosmic-ray's, which fails on dotted names: those are left alone."""

    @staticmethod
    def _name_nodes(node):
        caught = node.children[1]
        names = caught.children[1].children[::2] if caught.type == "atom" else [caught]
        return [name for name in names if name.type == "name"]


class DropKeyword(Operator):
    """`f(x, dim=1)` becomes `f(x)`."""

    def mutation_positions(self, node):
        if node.type in ("arglist", "trailer"):
            for argument in node.children:
                if argument.type == "argument" and argument.children[1] == "=":
                    yield argument.start_pos, argument.end_pos

    def mutate(self, node, index):
        named = [a for a in node.children if a.type == "argument" and a.children[1] == "="]
        place = node.children.index(named[index])
        after = place + 2 if place + 1 < len(node.children) and node.children[place + 1] == "," else place + 1
        node.children[place:after] = []
        return node

    @classmethod
    def examples(cls):
        return ()


class SwapName(Operator):
    """`min` becomes `max`, and what else is easily confused."""

    NAMES = dict(SWAPS) | {b: a for a, b in SWAPS}

    def mutation_positions(self, node):
        if node.type == "name" and node.value in self.NAMES and _is_called(node):
            yield node.start_pos, node.end_pos

    def mutate(self, node, index):
        return tree.Name(self.NAMES[node.value], node.start_pos, prefix=node.prefix)

    @classmethod
    def examples(cls):
        return ()


def _is_called(name: tree.Name) -> bool:
    following = name.get_next_leaf()
    return following is not None and following.value == "(" and name.parent.type not in ("funcdef", "classdef")


class SwapArguments(Operator):
    """`f(a, b)` becomes `f(b, a)`: the first two, where both are given by position and neither is a plain value."""

    # Of these the order means nothing, or is of types.
    LEFT_ALONE = ("isinstance", "issubclass", "cast", "NamedTuple", "min", "max", "minimum", "maximum", "array_equal")

    def mutation_positions(self, node):
        if node.type == "arglist" and len(node.children) >= 3:
            first, _, second = node.children[:3]
            plain = {first.type, second.type} & {"argument", "number", "string", "keyword"}
            called = first.get_first_leaf().get_previous_leaf().get_previous_leaf().value
            if not plain and called not in self.LEFT_ALONE and first.get_code().strip() != second.get_code().strip():
                yield first.start_pos, second.end_pos

    def mutate(self, node, index):
        first, comma, second = node.children[:3]
        node.children[:3] = [second, comma, first]
        return node

    @classmethod
    def examples(cls):
        return ()


def operators() -> dict[str, Operator]:
    """All operators, by the names under which a list of mutants has them."""
    names = [f"ReplaceBinaryOperator_{old}_{new}" for old, became in BINARY.items() for new in became]
    names += [f"ReplaceComparisonOperator_{old}_{new}" for old, became in COMPARISON.items() for new in became]
    theirs = {name: get_operator(f"core/{name}")() for name in [*names, *OTHER]}
    return theirs | {
        own.__name__: own() for own in (DeleteStatement, ExceptionReplacer, DropKeyword, SwapName, SwapArguments)
    }


class Mutation(NamedTuple):
    """One fault that fits in a module.

    module: its path below the repository. operator, occurrence: which fault, and the how manieth place it fits in.
    line, column: where (from 1 and 0). was: that line, without spaces at its ends. key: a number that follows from
    the seed, the line's text and the place in it, not from the module's other lines; the smallest are the sample.
    """

    module: str
    operator: str
    occurrence: int
    line: int
    column: int
    was: str
    key: int

    def applied(self, source: str) -> str:
        """The module's text with this fault."""
        mutated: str | None = mutate_code(source, operators()[self.operator], self.occurrence)
        if mutated is None or mutated == source:
            raise ValueError(f"{self.module}: {self.operator} does not fit {self.occurrence + 1} times; list them anew")
        return mutated


def becomes(source: str, mutated: str) -> str:
    """The first line of a mutated text that differs from the source's, without spaces at its ends."""
    pairs = zip(source.split("\n"), mutated.split("\n"), strict=False)
    return next((new.strip() for old, new in pairs if old != new), "")


def mutations(module: str, source: str, seed: int) -> Iterator[Mutation]:
    """At most one fault of a kind for each place of a module (a sign, a number, a call …), drawn by the seed."""
    at: dict[tuple[int, int, str], list[Mutation]] = {}
    for fault in all_mutations(module, source, seed):
        at.setdefault((fault.line, fault.column, fault.operator.split("_")[0]), []).append(fault)
    for choices in at.values():
        yield min(choices, key=lambda fault: _number("choice", fault.key))


def all_mutations(module: str, source: str, seed: int) -> Iterator[Mutation]:
    """All faults that fit in a module.

    Left alone: docstrings, annotations, imports, `__all__`, texts of errors and warnings, what only type checkers read,
    and `strict=True` of zip.
    """
    nodes = list(ast_nodes(get_ast(source)))  # in the order in which cosmic-ray counts
    lines = source.split("\n")
    seen: dict[str, int] = {}
    for name, operator in operators().items():
        places = [(start, node) for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, (start, node) in enumerate(places):
            if _is_left_alone(node, start, name):
                continue
            line = lines[start[0] - 1]
            was = line.strip()
            column = start[1] - len(line) + len(line.lstrip())
            text = f"{module}|{name}|{was}|{column}"
            seen[text] = seen.get(text, 0) + 1
            yield Mutation(module, name, occurrence, *start, was, _number(seed, text, seen[text]))


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:8])


def _is_left_alone(node: NodeOrLeaf, start: tuple[int, int], operator: str) -> bool:
    child: NodeOrLeaf = node
    parent = node.parent
    while parent is not None:
        if parent.type in ("import_name", "import_from", "global_stmt", "del_stmt"):
            return True
        if parent.type == "raise_stmt" or _warns(parent):
            return True
        if parent.type == "annassign" and child is parent.children[1]:
            return True
        if parent.type == "tfpdef" and child is parent.children[-1]:
            return True
        if parent.type == "funcdef" and child is parent.annotation:
            return True
        if parent.type == "expr_stmt" and parent.get_defined_names()[:1] and _declares(parent, operator):
            return True
        if parent.type == "if_stmt" and parent.children[1].get_code().strip() == "TYPE_CHECKING":
            return True
        child, parent = parent, parent.parent
    is_test_of_types = node.type == "if_stmt" and node.children[1].get_code().strip() == "TYPE_CHECKING"
    overloaded = node.type == "decorator" and "overload" in node.get_code()
    return (
        is_test_of_types
        or overloaded
        or _is_union(node, start, operator)
        or _is_no_sum(node, operator)
        or _is_strict(node, start)
    )


def _warns(node: NodeOrLeaf) -> bool:
    """Whether a node is a call of warnings.warn, whose text nobody computes with."""
    return node.type == "atom_expr" and node.get_code().strip().startswith("warnings.warn(")


def _declares(statement: NodeOrLeaf, operator: str) -> bool:
    """Whether an assignment only names something: `__all__`, or a type (`Part = Annotated[A | B, …]`)."""
    name = statement.get_defined_names()[0].value
    return name == "__all__" or ("BitOr" in operator and name[:1].isupper() and not name.isupper())


def _is_union(node: NodeOrLeaf, start: tuple[int, int], operator: str) -> bool:
    """Whether `|` stands between types, as in isinstance(x, int | float)."""
    if "BinaryOperator_BitOr" not in operator:
        return False
    leaf = node.get_root_node().get_leaf_for_position(start)
    sides = [leaf.get_previous_leaf(), leaf.get_next_leaf()]
    return any(side.value in ("int", "float", "str", "None", "bool", "list", "dict", "Path", "tuple") for side in sides)


def _is_no_sum(node: NodeOrLeaf, operator: str) -> bool:
    """Whether `*` or `**` stands before an argument or a parameter, where another sign would be no Python."""
    sums = ("arith_expr", "term", "power", "expr", "and_expr", "xor_expr")
    return operator.startswith("ReplaceBinaryOperator") and node.parent.type not in sums


def _is_strict(node: NodeOrLeaf, start: tuple[int, int]) -> bool:
    """Whether it is the `strict=True` of a zip over what always has equal lengths, which the linter asks for."""
    argument = node.get_root_node().get_leaf_for_position(start).parent
    return argument.type == "argument" and argument.get_code().strip() == "strict=True"
