"""`mammodet audit` as a file."""

from mammodet.cli import run
from mammodet.commands.audit import main

if __name__ == "__main__":
    run(main)
