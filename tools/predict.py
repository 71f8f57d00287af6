"""`mammodet predict` as a file."""

from mammodet.cli import run
from mammodet.commands.predict import main

if __name__ == "__main__":
    run(main)
