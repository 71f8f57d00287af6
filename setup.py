"""One package is installed: `converters` and `configs` lie inside `mammodet` (everything else is in setup.cfg)."""

from setuptools import find_packages, setup

inside = {"mammodet.converters": "converters", "mammodet.configs": "configs"}
converters = [f"mammodet.{name}" for name in find_packages(include=["converters", "converters.*"])]
setup(
    packages=[*find_packages(include=["mammodet", "mammodet.*"]), *converters, "mammodet.configs"], package_dir=inside
)
