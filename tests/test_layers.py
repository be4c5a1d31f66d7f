"""Imports point down: no room imports one above it or beside it, and some libraries have rooms of their own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import fedbcs_monai

FLOORS = {
    "__main__": 13,
    "cli": 12,
    **dict.fromkeys(["benchmark", "training"], 11),
    **dict.fromkeys(["bundle", "report"], 10),
    **dict.fromkeys(["predict", "backends"], 9),
    "ood.file": 8,
    "runs": 7,
    **dict.fromkeys(["ood", "progress"], 6),
    "federated": 5,
    "methods": 4,
    **dict.fromkeys(["federated.method", "ood.style"], 3),
    "federated.aggregation": 2,
    **dict.fromkeys(["networks", "losses", "prototypes", "data", "metrics", "demo"], 2),
    **dict.fromkeys(["federated.messages", "ood.distance"], 1),
    **dict.fromkeys(["tensors", "config", "names", "html"], 0),
    **dict.fromkeys(["components", "files", "catalog"], -1),
    **dict.fromkeys(["settings", "registry"], -2),
    "allowlist": -3,
    **dict.fromkeys(["errors", "version"], -4),
}
"""Of rooms, and of the modules of a room that stand lower than the rest of it."""

PLACES = {
    "monai.fl": ("backends/monai.py",),
    "nvflare": ("backends/nvflare/",),
    "finch": ("prototypes/clustering.py",),
    **dict.fromkeys(["itk", "nibabel"], ("predict/", "data/", "demo/")),
    **dict.fromkeys(["pydicom", "highdicom"], ("predict/dicom/",)),
    "tifffile": ("predict/large_image/",),
}


def imports() -> Iterator[tuple[str, str]]:
    """Every file but the package's own, and the dotted name of everything it imports, wherever in the file."""
    package = Path(fedbcs_monai.__file__).parent
    for path in sorted(package.rglob("*.py")):
        if path != package / "__init__.py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names]
                else:
                    continue
                yield from ((path.relative_to(package).as_posix(), name) for name in names)


def place_of(module: str) -> str:
    """The module itself where it has a floor of its own, else its room."""
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in FLOORS else parts[0]


def points_down(file: str, name: str) -> bool:
    mine, other = place_of(file.removesuffix(".py").replace("/", ".")), place_of(name.partition(".")[2])
    return mine == other or FLOORS[other] < FLOORS[mine]


def test_imports_are_absolute_and_point_down():
    ours = [(file, name) for file, name in imports() if name.startswith(("fedbcs_monai.", "."))]
    assert len(ours) > 100
    assert [pair for pair in ours if pair[1].startswith(".") or not points_down(*pair)] == []


def test_libraries_keep_to_their_rooms():
    for library, places in PLACES.items():
        importing = {file for file, name in imports() if f"{name}.".startswith(f"{library}.")}
        assert {file for file in importing if not file.startswith(places)} == set(), library
