"""Settings: every key of a run with its type, default, bounds and help."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta, Struct, field

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.errors import UserError, nearest

METHODS = "fedbcs_monai.methods"
"""Where our methods are."""

Component = dict[str, Any]
"""An object to build: a `_target_` and its arguments, in MONAI's form. Empty: none is set."""

ONE_STRUCTURE = "only background and one structure can be segmented, each in a channel of its own"
"""Why another number of classes is refused."""


def _key(
    help: str,
    *,
    least: int | None = None,
    said: str = "",
    resume: bool = False,
    site: bool = False,
    travels: bool = True,
    category: str = "",
    needed: str = "",
) -> Meta:
    """What a key is for, and its rules.

    Args:
        help: one line for the command line and the documentation.
        least: the smallest whole number that is accepted.
        said: what an error says the value must be, where its type does not say enough.
        resume: a run may be resumed under another value.
        site: a site of a real federation decides it for itself, in its own file.
        travels: it is part of a job; where data and results lie never is.
        category: of a component, as the allow-list has it.
        needed: ``predict`` where even prediction needs it, ``train`` where only training does.
    """
    rules = {"said": said, "resume": resume, "site": site, "travels": travels, "category": category, "needed": needed}
    return Meta(ge=least, description=help, extra=rules)


class Settings(Struct, frozen=True, kw_only=True):
    """A run: what is trained, on which data, for how long, and where. `load_config` makes one and checks it."""

    task: Annotated[str, _key("name of the task, for reports")] = ""
    classes: Annotated[
        list[str],
        Meta(min_length=2, max_length=2),
        _key("names of the classes, background first", said=f"{ONE_STRUCTURE}; give two names, background first"),
    ] = field(default_factory=list)
    name: Annotated[str, _key("name of the run, for reports (default: its method)", resume=True)] = ""
    output: Annotated[str, _key("run folder", resume=True, travels=False)] = ""
    sites: Annotated[str, _key("site list (JSON) that `fedbcs sites` wrote", site=True, travels=False)] = ""
    fold: Annotated[int, _key("fold that is tested, for site lists with folds", least=0)] = 0
    leave_out: Annotated[str, _key("site to leave out of training; all its cases are scored as unseen")] = ""

    method: Annotated[Component, _key("federated method, by name or as a class with its fields", category="method")] = (
        field(default_factory=lambda: {"_target_": f"{METHODS}.FedAvg"})
    )
    rounds: Annotated[int, _key("federated rounds", least=1, resume=True)] = 400
    epochs: Annotated[int, _key("local epochs per round", least=1)] = 1
    batch_size: Annotated[
        int, _key("training samples per step, each as many images as augmentation makes of it", least=1)
    ] = 6
    seed: Annotated[int, _key("seed of the initial weights, of the order of cases and of augmentation", least=0)] = 0
    shuffle: Annotated[bool, _key("shuffle the training samples every epoch")] = True
    reset_optimizer: Annotated[bool, _key("forget the optimizer's state after every round")] = False
    centralized: Annotated[
        bool | Literal["site"],
        _key(
            "train on the pooled cases of all sites; site: with as many steps as one site makes",
            said="give true, or site for as many steps as one site makes",
        ),
    ] = False
    ood: Annotated[
        bool,
        _key(
            "also learn the style of the sites' cases, to warn of out-of-distribution images at prediction", site=True
        ),
    ] = True

    evaluate_every: Annotated[
        int, _key("rounds between evaluations on validation cases; the last round is always evaluated", least=1)
    ] = 10
    patience: Annotated[
        int, _key("stop after this many rounds without a better validation score; 0: never", least=0, resume=True)
    ] = 0
    best_on_test: Annotated[
        bool, _key("also score the test cases at every evaluation, only to report the optimistic best on test")
    ] = False
    checkpoint_every: Annotated[
        int, _key("rounds between checkpoints; an interrupted run writes one as well", least=1, resume=True)
    ] = 1
    keep_checkpoints: Annotated[int, _key("number of newest checkpoints to keep; 0: all", least=0, resume=True)] = 2
    examples: Annotated[int, _key("test cases per site whose picture is kept in the run folder", least=0)] = 2

    device: Annotated[str, _key("auto, cpu, cuda, cuda:1 or mps", resume=True, site=True)] = "auto"
    precision: Annotated[Literal["float32", "bfloat16", "float16"], _key("precision of the network")] = "float32"
    channels_last: Annotated[bool, _key("channels-last memory layout")] = False
    compile: Annotated[bool, _key("apply torch.compile to the plain forward pass")] = False
    threads: Annotated[int, _key("CPU threads of torch; 0: torch decides", least=0, resume=True, site=True)] = 0
    workers: Annotated[
        int, _key("processes that read and augment; 0: the training process itself", least=0, resume=True, site=True)
    ] = 0
    cache: Annotated[
        bool,
        _key(
            "keep decoded cases in memory; false: slices wait in temporary files, pictures are read every epoch",
            resume=True,
            site=True,
        ),
    ] = True

    network_def: Annotated[Component, _key("the network", category="network", needed="predict")] = field(
        default_factory=dict
    )
    reads: Annotated[Literal["volumes", "pictures"], _key("kind of image files, which `reading` must support")] = (
        "volumes"
    )
    slice_plane: Annotated[
        Literal["file", "axial", "coronal", "sagittal"],
        _key("plane of the slices to which `preprocessing` turns volumes; file: those along each file's last axis"),
    ] = "file"
    reading: Annotated[
        Component, _key("transforms that read image and label of a case", category="transform", needed="predict")
    ] = field(default_factory=dict)
    preprocessing: Annotated[
        Component,
        _key("deterministic transforms of a case, `reading` among them", category="transform", needed="predict"),
    ] = field(default_factory=dict)
    slicing: Annotated[
        Component, _key("transform from a case to its training samples; null: a case is one", category="transform")
    ] = field(default_factory=dict)
    augmentation: Annotated[
        Component,
        _key("random transforms of a training sample, to one or to several of the same batch", category="transform"),
    ] = field(default_factory=dict)
    inferer: Annotated[
        Component, _key("MONAI inferer that applies the network to a whole case", category="inferer", needed="predict")
    ] = field(default_factory=dict)
    postprocessing: Annotated[
        Component,
        _key("transforms from logits to a mask on the case's own grid", category="transform", needed="predict"),
    ] = field(default_factory=dict)
    loss: Annotated[Component, _key("loss of logits and label", category="loss", needed="train")] = field(
        default_factory=dict
    )
    optimizer: Annotated[
        Component, _key("torch optimizer; its parameters are filled in", category="optimizer", needed="train")
    ] = field(default_factory=dict)
    schedule: Annotated[
        Component, _key("torch scheduler of the learning rate, stepped once per round; null: none", category="schedule")
    ] = field(default_factory=dict)

    trust: Trust = Trust()
    """What may be built besides the allow-list. Code alone sets it: it is not a key of a file."""


class Key(NamedTuple):
    """A key of the settings, as the command line and the documentation explain it.

    Args:
        name: as it is written.
        kind: what its value is, in words.
        default: its value if not set.
        help: what it is for.
        type: its annotated type.
        rules: of `_key`.
    """

    name: str
    kind: str
    default: Any
    help: str
    type: Any
    rules: Mapping[str, Any]


def _key_of(found: msgspec.structs.FieldInfo) -> Key:
    base, *metas = get_args(found.type)
    about = next(meta for meta in metas if meta.extra)
    default = found.default_factory() if found.default is msgspec.NODEFAULT else found.default
    return Key(found.name, _kind(base, about), default, about.description, found.type, about.extra)


def _kind(base: Any, about: Meta) -> str:
    """What values of a type are, in the words of an error: "a whole number, 1 or more"."""
    if base is int:
        return f"a whole number, {about.ge} or more"
    if get_origin(base) is Literal:
        return f"one of {', '.join(get_args(base))}"
    kinds: dict[Any, str] = {bool: "true or false", str: "text", Component: "a component with a `_target_`"}
    return kinds.get(base) or ("true, false or site" if bool in get_args(base) else "a list of names")


KEYS: Mapping[str, Key] = {
    found.name: _key_of(found) for found in msgspec.structs.fields(Settings) if found.name != "trust"
}
"""Every key of a run, in the order in which it is explained."""

SLOTS: Mapping[str, str] = {name: key.rules["category"] for name, key in KEYS.items() if key.rules["category"]}
"""Keys that hold a component, and of which category; every other key holds plain values."""

TEXTS = frozenset(name for name, key in KEYS.items() if key.kind.startswith(("text", "one of"))) | {"classes", "method"}
"""Keys whose values are names or paths, so that a NO or a 001 in YAML is text."""

OLD_NAMES: Mapping[str, str] = {"pool": "centralized", "familiarity": "ood"}
"""Keys that have been renamed, with their names of today."""

OLD_FIELDS: Mapping[str, str] = {"tap": "feature_layer"}
"""Fields of methods that have been renamed, with their names of today."""


def keys_that(rule: str, value: Any = True) -> tuple[str, ...]:
    """The keys of which a rule of `_key` holds.

    >>> keys_that("travels", False), keys_that("needed", "train")
    (('output', 'sites'), ('loss', 'optimizer'))
    """
    return tuple(name for name, key in KEYS.items() if key.rules[rule] == value)


def check_value(key: str, value: Any, where: str = "") -> Any:
    """The value of a key that holds no component, as its type has it; None is the default where a key may be empty.

    Args:
        key: one of `KEYS`.
        value: as a file or the command line has it.
        where: what an error begins with, such as a file and a colon.

    Raises:
        UserError: what it must be.
    """
    about = KEYS[key]
    if value is None and about.default in ("", [], False) and about.kind != "true or false":
        return about.default
    try:
        return msgspec.convert(str(value) if isinstance(value, Path) else value, about.type)
    except msgspec.ValidationError:
        texts = f"{about.kind}, one name or one path" if about.kind == "text" else about.kind
        raise UserError(f"{where}{key} is {value!r}: {about.rules['said'] or f'it must be {texts}'}") from None


def check_keys(content: Any, known: Mapping[str, Any], where: str) -> None:
    """Refuse anything that is not a mapping, and unknown keys.

    Raises:
        UserError: which, and the nearest that would have worked.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: must be a mapping with {', '.join(known)}, got {content!r}")
    for key in content:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, known)}")


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as they are written to JSON: without trust, and without keys that are empty."""
    content = {key: getattr(settings, key) for key in KEYS}
    kept = {key: value for key, value in content.items() if value not in ("", [], {})}
    resolved: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return resolved


def require(settings: Settings, keys: tuple[str, ...], remedy: str) -> None:
    """Refuse settings that leave keys empty.

    Raises:
        UserError: which, and the remedy.
    """
    missing = [key for key in keys if not getattr(settings, key)]
    if missing:
        raise UserError(f"the configuration lacks {', '.join(missing)}; {remedy}")


def name_of(settings: Settings) -> str:
    """What a run goes by: its name, or else its method's class.

    >>> name_of(Settings())
    'FedAvg'
    """
    return settings.name or str(settings.method.get("_target_", "")).rpartition(".")[2]


def check_classes(network_def: Any, classes: Any, where: str = "") -> None:
    """Refuse anything but background and one structure: several would be scored as their union.

    Args:
        network_def: of a run.
        classes: of a run.
        where: what the message begins with, such as the file of the configuration and a colon.

    Raises:
        UserError: which key, its value, and the way out.
    """
    channels = network_def.get("out_channels", 2) if isinstance(network_def, Mapping) else 2
    if channels != 2:
        raise UserError(f"{where}network_def::out_channels is {channels!r}: {ONE_STRUCTURE}; give 2")
    check_value("classes", classes, where)
