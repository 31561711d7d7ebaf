"""The stages in order: read `build.py` first.

Only here do stages, engines and the lake meet. Every file but `build.py` is one step of it: it tells what is out of
date and why, runs a stage, and commits what the stage made.
"""
