"""The page that the user opens: results in; figures, notebook.md, report.html out."""
