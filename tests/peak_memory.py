"""A program's own memory, for tests that bound how much it takes."""

# Not ru_maxrss: a child begins with its parent's there, which hides its own peak.
MEMORY = """
from pathlib import Path

def memory_mb(line):  # VmRSS: now, VmHWM: the peak
    lines = Path("/proc/self/status").read_text().splitlines()
    (found,) = [text.split()[1] for text in lines if text.startswith(f"{line}:")]
    return int(found) / 1024

def forget_peak():
    Path("/proc/self/clear_refs").write_text("5")
"""
