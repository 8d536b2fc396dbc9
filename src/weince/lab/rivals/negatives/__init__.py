"""Losses that choose or weigh the negatives otherwise."""
