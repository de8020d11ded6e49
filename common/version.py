"""The software's version, as outputs state it."""

VERSION = "0.1.0"
