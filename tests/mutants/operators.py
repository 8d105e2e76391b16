"""`Mutant`: one small fault in one file, and all that a file can have."""

import ast
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

__all__ = ["Mutant", "mutants_of"]

_COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_OTHER_NAME = {"min": "max", "max": "min", "any": "all", "all": "any"}
_UNWRAPPED = {"ceil", "floor", "round", "abs", "int", "shield", "sorted", "reversed"}
_LOGS = {"_log", "log"}
_PROSE = {"description", "title", "examples", "help"}  # arguments that are only read by people


@dataclass(frozen=True, slots=True)
class Mutant:
    """What to write instead of what: `start` and `end` are offsets in bytes."""

    path: str
    lines: range
    function: range  # the lines of the function around it; of the whole file outside of any
    start: int
    end: int
    before: str
    after: str

    def apply(self, source: bytes) -> bytes:
        """Return the file's text with the fault in it."""
        return source[: self.start] + self.after.encode() + source[self.end :]

    def __str__(self) -> str:
        """Show the place, and of both texts about 90 characters from shortly before they differ."""
        texts = [_plain(self.before), _plain(self.after)]
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
        begin = max(0, same - 30)
        shown = [("..." if begin else "") + text[begin : begin + 90] for text in texts]
        return f"{self.path}:{self.lines.start}: {shown[0]}  ->  {shown[1]}"


def _plain(text: str) -> str:
    """Return an expression as `ast` writes it, a statement as it stands, in one line."""
    with suppress(SyntaxError):
        text = ast.unparse(ast.parse(f"({text})", mode="eval"))
    return " ".join(text.split())


def mutants_of(path: Path, root: Path) -> list[Mutant]:
    """List every mutant of a file, in the order of its lines."""
    source, name = path.read_bytes(), str(path.relative_to(root))
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    found = []
    for node, function in _visited(ast.parse(source), range(1, len(offsets))):
        for target, changed in _changes(node):
            start = offsets[target.lineno - 1] + target.col_offset
            end = offsets[target.end_lineno - 1] + target.end_col_offset
            lines = range(target.lineno, target.end_lineno + 1)
            texts = source[start:end].decode(), _written(changed, target.col_offset)
            found.append(Mutant(name, lines, function, start, end, *texts))
    return found


def _written(node: ast.AST, indent: int) -> str:
    text = ast.unparse(node)
    return f"({text})" if isinstance(node, ast.expr) else text.replace("\n", "\n" + " " * indent)


def _visited(node: ast.AST, function: range) -> Iterator[tuple[ast.AST, range]]:
    """Yield the nodes that may change, with the lines of the function around each."""
    if _is_left_out(node):
        return
    if isinstance(node, ast.stmt | ast.expr):
        yield node, function
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = range(node.lineno, (node.end_lineno or node.lineno) + 1)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _visited(child, function)


def _is_left_out(node: ast.AST) -> bool:
    """Whether nobody would write a test for it: log lines, assertions, texts, types."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            found = name in _LOGS
        case ast.ClassDef():
            found = any("Protocol" in ast.unparse(base) for base in node.bases)
        case ast.If():
            found = "TYPE_CHECKING" in ast.unparse(node.test)
        case ast.keyword():
            found = node.arg in _PROSE
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__" | "_log")]):
            found = True
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Subscript()):
            found = name[0].isupper() and not name.isupper()  # another name of a type
        case ast.Call(func=ast.Name(id="TypeVar")):
            found = True
        case _:
            found = isinstance(node, ast.JoinedStr | ast.Assert)
    return found


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Yield what to replace, the node or a part of it, and by what."""
    if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)
    kinds = (_of_statement,) if isinstance(node, ast.stmt) else (_of_expression, _of_operator)
    for kind in kinds:
        yield from ((node, changed) for changed in kind(node))


def _of_statement(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.Raise() | ast.AugAssign():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Return(value=ast.expr() as value):
            if not (isinstance(value, ast.Constant) and value.value is None):
                yield ast.Return(ast.Constant(None))
        case ast.Continue():
            yield ast.Break()
        case ast.Break():
            yield ast.Continue()
        case ast.With() | ast.AsyncWith():
            if all(item.optional_vars is None for item in node.items):
                yield ast.If(ast.Constant(True), node.body, [])


def _of_operator(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[op]):
            for other in _COMPARISONS[type(op)]:
                yield ast.Compare(node.left, [other()], node.comparators)
        case ast.BoolOp(op=op):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), node.values)
            yield node.values[0] if len(node.values) == 2 else ast.BoolOp(op, node.values[1:])
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            yield ast.BinOp(node.left, _ARITHMETIC[type(op)](), node.right)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand


def _of_expression(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.IfExp():
            yield ast.IfExp(node.test, node.orelse, node.body)
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Tuple(ctx=ast.Load(), elts=[_, _, *_]) if not _has_slice(node):
            yield ast.Tuple(node.elts[:-1], ast.Load())
        case ast.Call():
            yield from _of_call(node)


def _of_call(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
    if name in _OTHER_NAME and isinstance(node.func, ast.Name):
        yield ast.Call(ast.Name(_OTHER_NAME[name]), node.args, node.keywords)
    elif name in _UNWRAPPED and node.args:
        yield node.args[0]
    elif len(node.args) >= 2 and not any(isinstance(arg, ast.Starred) for arg in node.args[:2]):
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    for left_out in node.keywords:
        if left_out.arg and left_out.arg not in _PROSE:
            rest = [keyword for keyword in node.keywords if keyword is not left_out]
            yield ast.Call(node.func, node.args, rest)


def _has_slice(node: ast.Tuple) -> bool:
    return any(isinstance(element, ast.Slice) for element in node.elts)
