"""Figures for a reader: tables, charts, reports."""
