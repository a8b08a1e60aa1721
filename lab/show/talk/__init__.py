"""What it costs when one instance calls another: tables for a terminal, and a report's charts."""
