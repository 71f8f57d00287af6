"""Pictures, curves and the HTML report: from records, predictions and metrics to what a person looks at.

Import from the modules: `overlay` (pictures), `gallery` (a folder of pictures), `curves` (plots), `ranking`
(which images are worst), `html` (the report).
"""
