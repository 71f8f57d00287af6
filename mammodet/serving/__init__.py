"""The reading page and the REST interface (docs/view.md): on this machine alone; needs the extra `view`."""
