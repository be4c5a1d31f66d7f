"""States: what a site keeps between two questions of a server, on the site's own disk."""

from dataclasses import dataclass
from pathlib import Path

from fedbcs_monai.federated.messages import Moment
from fedbcs_monai.files import sweep
from fedbcs_monai.tensors import Tensors, read_tensors, write_tensors


@dataclass(frozen=True)
class States:
    """A site's states, one file each: ``0003_0.safetensors`` is that after the first exchange of round 3.

    A question may come again: the process that worked on it was killed, or the server goes back to a checkpoint. The
    answer is the same, because it begins with the state that stood before the question, not with the newest.

    Args:
        folder: of one run at one site.
        rounds: so many rounds back a server may go.
    """

    folder: Path
    rounds: int = 1

    def before(self, moment: Moment) -> Moment | None:
        """When the newest state older than a moment was written; None if there is none."""
        return max((found for found in self._moments() if found < moment), default=None)

    def read(self, moment: Moment | None) -> Tensors:
        """The state of a moment; nothing for None, which is before the first."""
        return {} if moment is None else read_tensors(self._file(moment))

    def write(self, moment: Moment, state: Tensors, selected: int = 0) -> None:
        """Keep a state; forget later ones, which another run of these rounds wrote, and those nobody will ask for.

        Args:
            moment: after which exchange.
            state: of `Site.state`.
            selected: the round whose model is the best so far; 0: none is.
        """
        sweep(self.folder)
        write_tensors(self._file(moment), state)
        ends = (selected, *range(moment.round - self.rounds, moment.round))
        needed = {self.before(Moment(end + 1, 0)) for end in ends}
        for other in self._moments():
            if other > moment or (other.round < moment.round and other not in needed):
                self._file(other).unlink()

    def forget(self, moment: Moment) -> None:
        """Drop the state after an exchange whose answer was refused, so that the site goes on from the one before."""
        self._file(moment).unlink(missing_ok=True)

    def _moments(self) -> list[Moment]:
        return [Moment(*map(int, path.stem.split("_"))) for path in self.folder.glob("*_*.safetensors")]

    def _file(self, moment: Moment) -> Path:
        return self.folder / f"{moment.round:04d}_{moment.exchange}.safetensors"
