"""`mammodet subset` as a file."""

from mammodet.cli import run
from mammodet.commands.subset import main

if __name__ == "__main__":
    run(main)
