"""The cases that raw.py runs, and the wire they speak."""
