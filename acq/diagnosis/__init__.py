"""What a generator's samples are like: measured, told in words, drawn.

`measuring` looks at samples, `diagnosis` is what it finds, `complaints` says what is
wrong.
"""
