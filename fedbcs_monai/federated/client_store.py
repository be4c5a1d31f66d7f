"""ClientStore: the state that a site keeps between rounds, on its own disk."""

from dataclasses import dataclass
from pathlib import Path

from fedbcs_monai.federated.messages import ExchangeId
from fedbcs_monai.files import sweep
from fedbcs_monai.tensors import Tensors, read_tensors, write_tensors


@dataclass(frozen=True)
class ClientStore:
    """A site's states, one file each: ``0003_0.safetensors`` is that after the first exchange of round 3.

    A question may be repeated: its process was killed, or the server went back to a checkpoint. The answer is the same,
    because it starts from the state before the question, not from the newest.

    Args:
        folder: of one run at one site.
        rounds: how many rounds the server may go back.
    """

    folder: Path
    rounds: int = 1

    def before(self, exchange_id: ExchangeId) -> ExchangeId | None:
        """The exchange of the newest state before a given exchange; None if there is none."""
        return max((found for found in self._exchange_ids() if found < exchange_id), default=None)

    def read(self, exchange_id: ExchangeId | None) -> Tensors:
        """The state after an exchange; empty for None, which is before the first."""
        return {} if exchange_id is None else read_tensors(self._file(exchange_id))

    def write(self, exchange_id: ExchangeId, state: Tensors, selected: int = 0) -> None:
        """Keep a state; remove later ones, which an earlier attempt at these rounds wrote, and those no longer needed.

        Args:
            exchange_id: after which exchange.
            state: of `Site.state`.
            selected: the round whose model is the best so far; 0: none is.
        """
        sweep(self.folder)
        write_tensors(self._file(exchange_id), state)
        ends = (selected, *range(exchange_id.round - self.rounds, exchange_id.round))
        needed = {self.before(ExchangeId(end + 1, 0)) for end in ends}
        for other in self._exchange_ids():
            if other > exchange_id or (other.round < exchange_id.round and other not in needed):
                self._file(other).unlink()

    def forget(self, exchange_id: ExchangeId) -> None:
        """Drop the state after an exchange whose answer was refused, so that the site continues from the one before."""
        self._file(exchange_id).unlink(missing_ok=True)

    def _exchange_ids(self) -> list[ExchangeId]:
        return [ExchangeId(*map(int, path.stem.split("_"))) for path in self.folder.glob("*_*.safetensors")]

    def _file(self, exchange_id: ExchangeId) -> Path:
        return self.folder / f"{exchange_id.round:04d}_{exchange_id.exchange}.safetensors"
