"""The verbs of Hauberk, one file each: every verb takes artefacts and leaves one.

The command line is a thin layer above them, and ``import hauberk`` offers them by name: ``hauberk.attack(...)``.
"""
