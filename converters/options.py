"""What every converter is asked; a converter's own options are fields of a subclass (`flag`)."""

from pydantic.dataclasses import dataclass

from mammodet.command_line import Flag, Pairs, add_arguments, flag, pairs
from mammodet.command_line import Options as CommandOptions
from mammodet.data.splits import check_shares


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How patients are divided: shares of patients, number of folds (0: none), seed of the shuffle."""

    test_fraction: float = flag(0.2, "share of patients for test")
    val_fraction: float = flag(0.16, "share of patients for validation")
    folds: int = flag(0, "k folds over the patients outside the test set", words="none")
    seed: int = flag(0, "seed of the splits")


class Options(CommandOptions):
    """Options of a converter."""

    splits: SplitOptions = SplitOptions()
    jobs: int = flag(2, "images at a time", ge=1)
    #: Whether a bar shows how far the work is.
    progress: bool = True

    @property
    def divides_test(self) -> bool:
        """Whether the test set is a share of the patients, and not given by the archive."""
        return True

    def check_splits(self) -> None:
        """Refuse shares and folds that no set of patients can meet."""
        chosen = self.splits
        test_fraction = chosen.test_fraction if self.divides_test else 0.0
        check_shares(test_fraction=test_fraction, val_fraction=chosen.val_fraction, folds=chosen.folds)


__all__ = ["Flag", "Options", "Pairs", "SplitOptions", "add_arguments", "flag", "pairs"]
