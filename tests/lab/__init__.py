"""Emulated hosts with soft-RoCE (README.md), and their scenarios as tests."""
