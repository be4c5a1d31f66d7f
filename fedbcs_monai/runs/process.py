"""Process settings: threads and memory settings that a run applies to its whole process."""

import torch

from fedbcs_monai.federated.memory import keep_freed_memory
from fedbcs_monai.settings import Settings


def use_threads(settings: Settings) -> None:
    """Give torch the number of CPU threads that the settings name, if they name one."""
    if settings.threads:
        torch.set_num_threads(settings.threads)


def prepare_training(settings: Settings) -> None:
    """Have this process train: with its number of threads, and keeping the memory that it frees for the next step."""
    use_threads(settings)
    keep_freed_memory()
