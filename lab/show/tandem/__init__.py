"""Bursts of heavy work done by the service or in tandem with others: tables for a terminal, and the report's charts."""
