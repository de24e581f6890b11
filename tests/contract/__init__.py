"""Tests of the contract: what training writes, the service reads, now and in every later
version.
"""
