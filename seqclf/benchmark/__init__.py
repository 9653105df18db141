"""Benchmarks: seqclf against other programs, and against lower bounds such as bare matrix products."""
