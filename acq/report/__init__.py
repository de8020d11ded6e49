"""Makes a report of a quantization or an evaluation: `common.report.parts.Report`.

`compose` puts it together. `verdict` and `intervals` judge the accuracies, `layers`
reads ranges and sizes from the export, `drawings` draws, `tables` and `glossary` hold
what their names say.
"""
