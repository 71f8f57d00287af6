"""The version of the package, for rooms that must not import its face."""

VERSION = "0.1.0"
