"""Processes that search together."""
