"""A program's own peak of memory, for tests that bound it."""

# Not ru_maxrss: a child begins with its parent's there, which hides its own peak.
PEAK_MB = """
def peak_mb():
    from pathlib import Path
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(peak) / 1024
"""
