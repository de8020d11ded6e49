"""What a generator's samples are like: measured, told in words, drawn.

`diagnose` measures, `diagnosis` is what it finds, `complaints` says what is wrong.
"""
