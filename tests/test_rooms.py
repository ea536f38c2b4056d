"""The rooms of the house and which way their doors open."""

import ast
from pathlib import Path

import reprieve

SOURCE = Path(reprieve.__file__).parent
MAY_IMPORT = {
    "model": set[str](),
    "units": set[str](),
    "codec": {"model"},
    "oom": {"model", "units"},
    "rules": {"model", "units", "oom"},
    "show": {"model", "units", "oom", "rules", "codec"},
    "machine": {"model", "units", "oom"},
    "fix": {"model", "units"},
}
DOORS = {
    "apply",
    "undo",
    "living_verbs",
    "fix_verbs",
    "run_verb",
    "run_windows",
    "run",
    "bounded",
    "pytest_plugin",
    "smallest",
    "check",
    "cli",
    "why",
    "request",
    "output",
    "next",
    "demo",
    "snapshot",
    "top",
    "looked",
    "ours",
    "tui",
    "__init__",
    "__main__",
}
PURE = {"model", "units", "codec", "oom", "rules", "show", "fix"}
WORLD = set(
    "asyncio ctypes datetime fcntl glob io mmap multiprocessing os pathlib random select shutil signal socket "
    "subprocess tempfile threading time urllib".split()
)
TOUCHES = {"open", "input", "print", "exec", "eval", "__import__"}


def imports(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


def test_a_room_imports_only_what_stands_before_it_and_the_pure_ones_touch_nothing() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room in DOORS:
            continue
        assert room in MAY_IMPORT, f"{path} stands in no room"
        tree = ast.parse(path.read_text())
        for name in imports(tree):
            top, _, rest = name.partition(".")
            target = rest.partition(".")[0]
            if top == "reprieve" and target and target not in MAY_IMPORT[room] | {room}:
                wrong.append(f"{path.name} imports {name}")
            if top in WORLD and room in PURE:
                wrong.append(f"{path.name} touches the world: {name}")
        if room in PURE:
            calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
            wrong += [f"{path.name} calls {f.id}()" for f in calls if isinstance(f, ast.Name) and f.id in TOUCHES]
    assert not wrong
