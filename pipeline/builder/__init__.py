"""The incremental build. Start with `build.py`: it calls every step in order.

Every other file is one step: it finds out what is out of date and why, runs a stage, and returns the commits to make.
Only this folder combines stages, engines and the lake.
"""
