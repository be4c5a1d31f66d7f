"""Class names: what the structures of a task are called."""

from fedbcs_monai.settings import Settings


def classes_of(settings: Settings) -> list[str]:
    """The names of the classes, background first."""
    count = int(settings.network_def.get("out_channels", 2))
    named = settings.classes
    if len(named) == count:
        return list(named)
    structures = [settings.task or "foreground"] if count == 2 else [f"class {n}" for n in range(1, count)]
    return ["background", *structures]
