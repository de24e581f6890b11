"""Tests of the family: what holds for every member, then each on its own."""
