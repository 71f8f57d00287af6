"""`mammodet import` as a file."""

from mammodet.cli import run
from mammodet.commands.import_predictions import main

if __name__ == "__main__":
    run(main)
