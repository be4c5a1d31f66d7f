"""What surrounds the package: the steps of CI and container are the README's, and forms can be read."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
YAML = [
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
    *FORMS,
    *(ROOT / ".github" / "workflows").glob("*.yml"),
]


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def readme_commands():
    """The steps of the README's first two commands."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("python3 -m venv")]
    return [line.split(" && ") for line in lines]


def no_key_twice(node):
    """A mapping with a key twice drops one of its values in silence."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        for _, value in node.value:
            no_key_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            no_key_twice(value)


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_yaml_is_a_mapping_with_every_key_once(path):
    node = yaml.compose(path.read_text(encoding="utf-8"))
    assert isinstance(node, yaml.MappingNode)
    no_key_twice(node)


def test_ci_runs_what_the_readme_says_on_every_supported_python():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    steps = [step["run"] for step in jobs["tests"]["steps"] if "run" in step]
    assert steps[:2] == readme_commands()[1][2:]  # without the virtual environment: the machine is a fresh one
    matrix = jobs["tests"]["strategy"]["matrix"]
    classifiers = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert matrix["python"] == re.findall(r'Python :: (3\.\d+)"', classifiers)
    assert [system.split("-")[0] for system in matrix["system"]] == ["ubuntu", "macos", "windows"]


def test_ci_checks_what_the_script_of_a_clone_checks():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    lint = [step["run"] for step in read(".github/workflows/ci.yml")["jobs"]["lint"]["steps"] if "run" in step]
    checks = [line for line in script if line.startswith(("ruff", "mypy", "mkdocs"))]
    assert [step.replace("$RUNNER_TEMP", "$work") for step in lint[1:]] == checks


@pytest.mark.parametrize("path", [form for form in FORMS if form.stem != "config"], ids=lambda path: path.stem)
def test_a_form_has_what_the_platform_wants_and_asks_for_no_patient_data(path):
    form = read(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"textarea", "input", "checkboxes", "dropdown"}
    assert len({field["id"] for field in fields}) == len(fields)
    assert all(field["attributes"]["label"] for field in fields)
    assert "patient data" in path.read_text(encoding="utf-8").lower()


def test_a_bug_is_reported_with_versions():
    required = {field["id"] for field in read(".github/ISSUE_TEMPLATE/bug.yml")["body"] if "validations" in field}
    assert {"happened", "reproduce", "versions"} <= required


def instructions(name):
    """A Dockerfile's instructions as (word, rest)."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_container_is_built_as_the_readme_says_and_runs_as_nobody_special():
    steps = instructions("Dockerfile")
    assert ("RUN", " && ".join(readme_commands()[0][:3])) in steps
    assert readme_commands()[0][3:] == ["fedbcs demo"]
    words = [word for word, _ in steps]
    assert words.index("USER") > max(n for n, word in enumerate(words) if word == "RUN")
    assert dict(steps)["USER"] not in ("root", "0")
    assert json.loads(dict(steps)["ENTRYPOINT"]) == ["fedbcs"]


def test_the_container_gets_all_that_the_wheel_is_made_of_and_nothing_else():
    """Everything is left out, and then let in by name; data and trained models of a clone are not among it."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    shipped = set(re.findall(r'^"(.+)" = "fedbcs_monai/_shipped/', project, re.MULTILINE))
    assert let_in == shipped | {"fedbcs_monai", "LICENSE", "README.md", "constraints.txt", "pyproject.toml"}
    assert all((ROOT / name).exists() for name in let_in)
