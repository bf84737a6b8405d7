"""Code of the guest without what only readers and type checkers need, which would be read at each of its starts."""

from __future__ import annotations
import __future__

import ast
from types import CodeType

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def compiled(source: bytes, name: str) -> CodeType:
    """Compile a module without its docstrings, its functions' annotations, and the import that makes them lazy.

    Args:
        source: Its text.
        name: What tracebacks call the file.
    """
    tree = _Leaner().visit(ast.parse(source))
    # Without a function's annotations, what is left of them must not be evaluated, either.
    flags = __future__.annotations.compiler_flag if b"from __future__ import annotations" in source else 0
    code: CodeType = compile(ast.fix_missing_locations(tree), name, "exec", flags, dont_inherit=True, optimize=0)
    return code


class _Leaner(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Take out the docstring of whatever has one."""
        super().generic_visit(node)
        if isinstance(node, _Documented) and ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Pass()
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Take out what is said to the compiler."""
        return None if node.module == "__future__" else node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Take out the type of an argument."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Take out the type of a result."""
        node.returns = None
        return self.generic_visit(node)
