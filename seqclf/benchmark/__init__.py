"""Benchmarks: seqclf against its floors and rivals."""
