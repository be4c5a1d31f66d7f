"""Large networks: what goes in pieces and waits on disk gives the bits of what does not."""

import pytest
from msgspec.structs import replace

from fedbcs_monai.backends.local import train

pytestmark = [pytest.mark.nvflare, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_updates_that_wait_on_disk_change_nothing(tiny, assert_same_run, tmp_path):
    pytest.importorskip("nvflare")
    from fedbcs_monai.backends.nvflare.simulator import simulate

    widths = {"network_def::features": [8, 8, 16, 360, 720]}  # the lowest layer is larger than a piece
    config = tiny(examples=0, threads=1, **widths)
    large = simulate(replace(config, output=str(tmp_path / "run")), min_responses=3, log="error", offload_mib=1)
    assert_same_run(large, train(config))
