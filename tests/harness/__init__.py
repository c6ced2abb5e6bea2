"""Starts, watches and cleans up the guests of Ramferry's end-to-end tests. Standard library only."""
