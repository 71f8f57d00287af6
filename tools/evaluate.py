"""`mammodet evaluate` as a file."""

from mammodet.cli import run
from mammodet.commands.evaluate import main

if __name__ == "__main__":
    run(main)
