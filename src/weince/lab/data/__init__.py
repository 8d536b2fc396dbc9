"""Readers of ordinary files, and the published sets."""
