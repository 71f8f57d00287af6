"""Writes docs/metrics.schema.json, the JSON schema of metrics.json."""

import json
from pathlib import Path

from mammodet.evaluation.results import Metrics


def schema() -> str:
    """The schema as text."""
    return json.dumps(Metrics.model_json_schema(), indent=1) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / "metrics.schema.json").write_text(schema(), encoding="utf-8")
