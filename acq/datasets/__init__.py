"""Labelled images to evaluate classifiers, and the embedded digits.

`opening` makes `eval_data.EvalData` from settings. Each source of images has its own
module.
"""
