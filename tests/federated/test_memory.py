import subprocess
import sys

import pytest

from fedbcs_monai.federated.memory import peak_bytes, process_bytes

LINUX = pytest.mark.skipif(process_bytes("VmRSS") is None, reason="only Linux says what a process holds")
FREED = """
import torch
from fedbcs_monai.federated.memory import keep_freed_memory, process_bytes
if {keep}:
    keep_freed_memory()
block = torch.ones(2**26)
del block
print(process_bytes("VmRSS") / process_bytes("VmHWM"))
"""


@LINUX
def test_the_most_is_at_least_what_there_is():
    assert peak_bytes() >= process_bytes("VmRSS") > 0


@LINUX
@pytest.mark.parametrize("keep", [False, True])
def test_a_large_block_is_kept_when_asked_and_given_back_when_not(keep):
    ran = subprocess.run([sys.executable, "-c", FREED.format(keep=keep)], capture_output=True, text=True, check=True)
    assert (float(ran.stdout) > 0.9) == keep
