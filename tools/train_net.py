"""`mammodet train` as a file."""

from mammodet.cli import run
from mammodet.commands.train import main

if __name__ == "__main__":
    run(main)
