"""`mammodet phantoms` as a file."""

from mammodet.cli import run
from mammodet.commands.phantoms import main

if __name__ == "__main__":
    run(main)
