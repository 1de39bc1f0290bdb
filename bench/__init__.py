"""Benchmarks: each beside a named peer on the same work in the same run; ratios are what counts."""
